"""From text files to a data set of shards."""
