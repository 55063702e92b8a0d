"""Homeport: what the scheduler, the agent and their users share; the lowest layer of the code."""

__version__ = "0.1.0"
