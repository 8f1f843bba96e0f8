"""What several test files share beyond fixtures; pytest finds it by its setting `pythonpath`."""
