#!/usr/bin/env bash
# Makes .venv with the test extras and runs the quick tests. With arguments, pytest does exactly what they say:
# Usage: tests/run.sh [pytest arguments], e.g. tests/run.sh -m slow, tests/run.sh tests/ops
# PYTHON and VENV are those of launch/install.sh. tests/core.sh runs a part on the newest Python; tests/lint.sh reads the code.
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
launch/install.sh test
(($#)) || set -- -m 'not slow'
exec "${VENV:-.venv}/bin/python" -m pytest "$@"
