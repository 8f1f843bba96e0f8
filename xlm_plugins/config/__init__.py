"""Every setting: flags over TOML over defaults.  Imports no torch."""
