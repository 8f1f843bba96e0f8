"""Contracts, hook specifications and plugin discovery: the part that plugins build on."""
