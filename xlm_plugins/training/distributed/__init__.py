"""Runs of several processes: they join, are compared and watched, and end together."""
