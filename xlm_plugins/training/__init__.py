"""Training: a job, its run, and the loop that every job shares."""
