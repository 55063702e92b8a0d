"""Checkers: recorded history in, broken promises out.

Pure functions over the values of `tests.faults.history`, so that a new checker can be run over
old runs, and each can be shown to fail on a history made by hand (tests/faults/test_checks.py).
A newcomer would let a checker read files or ask a cluster; then nobody could ever see it fail.
"""
