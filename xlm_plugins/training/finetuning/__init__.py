"""The job of fine-tuning: a task, its seeds, and how it is evaluated."""
