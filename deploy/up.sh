#!/usr/bin/env bash
# `make up`: a one-machine cluster with the example stack, in the foreground until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/homeport up --example "$@"
