"""Weights and word vectors to start a new model from."""
