"""Code that several test files import; pytest finds it by its setting `pythonpath`."""
