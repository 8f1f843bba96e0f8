"""The job of pretraining: its plan, and how it is evaluated."""
