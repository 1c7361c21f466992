#!/usr/bin/env bash
# Style and types of the whole code, with what launch/install.sh test has put into .venv (VENV names another folder).
# Every check runs, whatever the others find. Usage: tests/lint.sh
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
bin=${VENV:-.venv}/bin
code=0
"$bin/python" -m ruff check . || code=1
"$bin/python" -m ruff format --check . || code=1
"$bin/python" -m pyright --pythonpath "$bin/python" || code=1
exit "$code"
