"""From text to batches, in three stages: prepare, dataset, batches."""
