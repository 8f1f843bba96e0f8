"""Registers the fixtures in tests/fixtures for every test, the core's and the plugins'."""

pytest_plugins = [
    "fixtures.commands",
    "fixtures.distributions",
    "fixtures.fault_counts",
    "fixtures.golden",
    "fixtures.random_models",
    "fixtures.ranks",
    "fixtures.tiny_runs",
    "fixtures.toy_task",
]
