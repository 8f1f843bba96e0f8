"""Forward, backward, update and state: the interface, in plain torch, and with DeepSpeed."""
