"""Checkpoints of XLM's original implementation."""
