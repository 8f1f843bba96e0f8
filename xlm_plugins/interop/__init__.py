"""Importing models of other libraries, and exporting ours."""
