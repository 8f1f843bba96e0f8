"""The network alone: embeddings, attention, transformer, output."""
