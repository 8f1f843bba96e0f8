"""Checkpoints of the XLM implementation."""
