"""The model: network, description, and the bundle that holds both on disk."""
