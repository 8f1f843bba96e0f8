"""Plugins found, checked and named; options; errors.  Imports no torch."""
