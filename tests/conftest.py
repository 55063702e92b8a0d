"""What every test may use: the testbed's fixtures (tests/testbed explains them)."""

import asyncio

# Python 3.11 makes a loop for whoever asks for the current one, and pytest-asyncio asks and never
# closes it: an error at the end of every run that mixes tests with and without a loop.
asyncio.set_event_loop(None)

pytest_plugins = ["tests.testbed.fixtures"]
