"""All that can be set: flags over TOML over defaults.  Imports no torch."""
