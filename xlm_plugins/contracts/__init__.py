"""What plugin authors implement, and what they are handed."""
