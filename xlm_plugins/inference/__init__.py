"""A trained model on raw text: a file for each use, named as its command."""
