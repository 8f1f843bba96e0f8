"""Parameter groups, AdamW and learning rate schedules."""
