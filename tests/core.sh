#!/usr/bin/env bash
# The core on the newest Python and JAX that are supported: models, ops, a training run, a resume, a conversion; then whether this
# environment sees the same batches and visual tokens as .venv, and the same first loss.
# Usage: tests/core.sh [pytest arguments]      PYTHON names the interpreter; default: 3.13 on PATH or one of pyenv's, then 3.12
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
shopt -s nullglob
if [[ -z ${PYTHON:-} ]]; then
  for candidate in python3.13 ~/.pyenv/versions/3.13.*/bin/python python3.12 ~/.pyenv/versions/3.12.*/bin/python; do
    # A command of this name may be there and not run: pyenv's shims are such.
    if "$candidate" -c 'import venv' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
fi
if [[ -z ${PYTHON:-} ]]; then
  echo "core tests left out: there is no Python 3.13 or 3.12 on PATH or among pyenv's; PYTHON=/path/to/python3.13 tests/core.sh names one"
  exit 0
fi
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV=${VENV:-.venv-$version}
export PYTHON VENV
launch/install.sh test
echo "core tests on Python $version:" "$("$VENV/bin/python" -m pip list --format=freeze | grep -iE '^(jax|jaxlib|flax|optax|orbax-checkpoint|grain|array_record|numpy)==' | paste -sd ' ')"
code=0
"$VENV/bin/python" -m pytest -rs -m 'not slow' \
  tests/ops tests/models tests/convert/test_rules.py tests/convert/test_command.py \
  tests/test_versions.py \
  "tests/runtime/test_training.py::test_alternating_and_joint_schedules_learn" \
  "tests/runtime/test_resume.py::test_ten_steps_and_ten_in_a_new_process_equal_twenty" "$@" || code=$?
exit "$code"
