#!/usr/bin/env bash
# Makes .venv beside setup.py and installs the package with the pinned, hashed versions it was tested with.
# Usage: launch/install.sh [test|tpu|cuda]      test: with what tests/run.sh needs; tpu, cuda: with JAX for these
# PYTHON names another interpreter than python3 (3.11 or newer). A second call does nothing if nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=${1:-}
lock=launch/requirements${extra:+-$extra}.txt
if [[ ! -f $lock ]]; then
  echo "error: unknown set of requirements '$extra'; give none, test, tpu or cuda" >&2
  exit 2
fi
python=${PYTHON:-}
for candidate in python3 python3.13 python3.12 python3.11; do
  [[ -n $python ]] && break
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
  fi
done
if [[ -z $python ]] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: Python 3.11 or newer is needed; name it: PYTHON=/path/to/python $0" >&2
  exit 2
fi
inputs() { cat "$lock" setup.py launch/requirements-torch.txt launch/install.sh; }
stamp=.venv/installed${extra:+-$extra}
if [[ -f $stamp ]] && cmp --silent "$stamp" <(inputs); then
  exit 0
fi
echo "installing into $PWD/.venv from $lock" >&2
[[ -x .venv/bin/python ]] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --require-hashes -r "$lock"
"${pip[@]}" --no-deps --no-build-isolation --editable .
if [[ $extra == test ]]; then
  "${pip[@]}" -r launch/requirements-torch.txt
  # What tests compare with or compile with, apart from the rest: other versions of what is there, and a TPU's library that
  # JAX would take for a TPU.
  "${pip[@]}" --upgrade --no-deps --target .venv/peers/transformers-4 transformers==4.57.1 huggingface_hub==0.36.2 tokenizers==0.22.2
  "${pip[@]}" --upgrade --no-deps --target .venv/peers/torchscale torchscale==0.3.0 fairscale==0.4.13 einops==0.8.2
  "${pip[@]}" --upgrade --no-deps --target .venv/peers/libtpu libtpu==0.0.42.1
fi
inputs >"$stamp"
