#!/usr/bin/env bash
# The core on the newest Python and JAX that are supported: models, ops, a training run, a resume, a conversion. Then, if .venv is
# there, whether both environments see the same batches and visual tokens and have the same losses in the first step.
# Usage: tests/core.sh [pytest arguments, such as tests/training]
# PYTHON names the interpreter; default: 3.13 or 3.12, on PATH or one of pyenv's.
# It installs into VENV, by default .venv- and the Python's version.
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
shopt -s nullglob

if [[ -z ${PYTHON:-} ]]; then
  for candidate in python3.13 ~/.pyenv/versions/3.13.*/bin/python python3.12 ~/.pyenv/versions/3.12.*/bin/python; do
    # A command of that name may be there and not run: pyenv's shims are such.
    if "$candidate" -c 'import venv' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
fi
if [[ -z ${PYTHON:-} ]]; then
  echo "core tests left out: neither Python 3.13 nor 3.12 is on PATH or one of pyenv's; name one with PYTHON=/path/to/python3.13" >&2
  exit 0
fi
VENV=${VENV:-.venv-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
export PYTHON VENV
launch/install.sh test
python=$VENV/bin/python
printf 'core tests on %s with ' "$("$python" --version)"
"$python" -m pip list --format=freeze --disable-pip-version-check | grep -iE '^(jax|flax|optax|orbax-checkpoint|grain|numpy)==' | paste -sd ' '
code=0
"$python" -m pytest -rs -m 'not slow' tests/test_versions.py tests/ops \
  tests/models/test_{parity,vlbeit,visual_tokenizer,products,cudnn}.py \
  tests/runtime/test_training.py::test_alternating_and_joint_schedules_learn \
  tests/runtime/test_resume.py::test_ten_steps_and_ten_in_a_new_process_equal_twenty \
  tests/convert/test_rules.py tests/convert/test_vlmo.py "$@" || code=1
if [[ -x .venv/bin/python ]]; then
  world=$(mktemp -d)
  trap 'rm -r "$world"' EXIT
  JAX_PLATFORMS=cpu .venv/bin/python -m tests.digests "$world/world" >"$world/first.json" || code=1
  JAX_PLATFORMS=cpu "$python" -m tests.digests "$world/world" --against="$world/first.json" >"$world/second.json" || code=1
fi
exit "$code"
