"""Fine-tuning: an encoder and a head on the labelled texts of a task."""
