"""A data set, on disk or at a URL: its manifest and shards."""
