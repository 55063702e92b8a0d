"""What every test may use: the testbed's fixtures (tests/testbed explains them)."""

pytest_plugins = ["tests.testbed.fixtures"]
