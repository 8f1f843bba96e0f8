"""Pretraining and translation: objectives on a data set."""
