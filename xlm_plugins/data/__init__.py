"""From text to batches: ``prepare`` writes a data set, ``dataset`` reads it, ``batches`` use it."""
