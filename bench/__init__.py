"""Reports and pytest-benchmark suites (see bench/README.md)."""
