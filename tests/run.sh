#!/usr/bin/env bash
# Makes .venv with the test extras and runs every test. Usage: tests/run.sh [pytest arguments], e.g. tests/run.sh -m 'not slow'
# PYTHON and VENV are those of launch/install.sh. tests/core.sh runs a part on the newest Python; tests/lint.sh reads the code.
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
launch/install.sh test
exec "${VENV:-.venv}/bin/python" -m pytest "$@"
