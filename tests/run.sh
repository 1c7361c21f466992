#!/usr/bin/env bash
# Makes .venv with the test extras and runs everything. Usage: tests/run.sh [pytest arguments], e.g. tests/run.sh -m 'not slow'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/install.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright --pythonpath .venv/bin/python
exec .venv/bin/python -m pytest "$@"
