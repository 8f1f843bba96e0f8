"""Parameter groups, AdamW and learning rates."""
