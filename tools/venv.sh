#!/usr/bin/env bash
# Bring a virtual environment to exactly what a lock file says: tools/venv.sh DIRECTORY LOCK.
#
# Creates it when it is missing. Every package is fetched by hash; the lock names no host, so a
# mirror of the package index that pip is configured for is used without a word.
set -euo pipefail

directory=$1
lock=$2
python=${PYTHON:-python3}

"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Homeport needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}."
             " Name another one: make PYTHON=python3.12 …")
PY

# Debian packs venv apart from Python: without ensurepip a virtual environment comes up without pip.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  "$(dirname "$0")/../tests/setup.sh" python3-venv
fi
if [ ! -x "$directory/bin/python" ]; then
  echo "creating $directory"
  "$python" -m venv "$directory"
fi
echo "installing $lock into $directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
  --require-hashes --requirement "$lock"
