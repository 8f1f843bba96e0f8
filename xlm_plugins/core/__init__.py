"""Plugin discovery, components by name, options, errors and files.  Imports no torch."""
