"""Forward, backward, update and state, in plain torch or by DeepSpeed."""
