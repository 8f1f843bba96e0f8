"""The model: network, description, and a bundle on disk with all that it needs."""
