"""The run folder: layout, writing, finding models, metrics and curves, without importing torch."""
