"""Weights and word vectors that a new model starts from."""
