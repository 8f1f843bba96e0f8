"""The training runtime: engines, optimizer, schedules, checkpoints and the trainer."""
