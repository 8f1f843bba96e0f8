"""Fixtures that any test may ask for, the core's and the plugins'."""

pytest_plugins = ["helpers.golden"]
