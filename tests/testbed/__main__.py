"""`python -m tests.testbed clean`: remove what crashed test runs have left on this machine."""

import sys

from tests.testbed.ledger import clean_crashed_runs


def main() -> int:
    """The exit code: 0, or 2 for a call that nobody understands."""
    if sys.argv[1:] != ["clean"]:
        sys.stderr.write("usage: python -m tests.testbed clean\n")
        return 2
    cleaned = clean_crashed_runs()
    sys.stdout.write(f"removed the leftovers of {len(cleaned)} crashed test runs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
