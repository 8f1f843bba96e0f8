"""The run folder: its layout, writing, finding models, metrics, curves.  Imports no torch."""
