"""Training: jobs, running them, and the loop that all of them share."""
