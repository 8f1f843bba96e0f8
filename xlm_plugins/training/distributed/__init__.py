"""Several processes: found, compared, watched, and ended together."""
