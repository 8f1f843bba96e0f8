"""Incremental decoding, greedy search, sampling and beam search."""
