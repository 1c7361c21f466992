#!/usr/bin/env bash
# Makes .venv beside setup.py and installs the package with the pinned, hashed versions it was tested with.
# Usage: launch/install.sh [test|torch|tpu|cuda|gcs|beam]      test: with what tests/run.sh needs; torch: with PyTorch and the other programs
# that weights are compared with, which test includes on Python 3.11; tpu, cuda: with JAX for these; gcs: with what paths such as gs://bucket/name need;
# beam: with Apache Beam, which needs an environment of its own (VENV)
# PYTHON names the interpreter; the default is the first supported one on PATH. VENV names another folder than .venv.
# A second call does nothing if nothing has changed. The script makes an environment anew if it is broken, half-made or copied.
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
extra=${1:-}
venv=${VENV:-.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
supported="Python 3.11, 3.12 and 3.13 are supported" # As in setup.py.

fail() { # fail MESSAGE...: a usage error
  printf 'error: %s\n' "$*" >&2
  exit 2
}

version_of() { # version_of INTERPRETER: prints its version, such as 3.11, or nothing if it does not run
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

locks_for() { # locks_for VERSION: prints the folder of this Python's lock files, or nothing if it is not supported
  case $1 in
    3.11) echo launch/locks/python3.11 ;;
    3.12 | 3.13) echo launch/locks/python3.13 ;;
  esac
}

choose_python() { # sets python and version: PYTHON, or the first supported one on PATH
  local candidate found=
  if [[ -n ${PYTHON:-} ]]; then
    python=$PYTHON version=$(version_of "$PYTHON")
    [[ -n $version ]] || fail "PYTHON=$PYTHON does not run; $supported; name one of them"
    [[ -n $(locks_for "$version") ]] || fail "PYTHON=$PYTHON is Python $version; $supported; name one of them"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    python=$candidate version=$(version_of "$candidate")
    [[ -z $(locks_for "$version") ]] || return 0
    found+=${version:+" ($candidate is Python $version)"}
  done
  fail "$supported, but none of them is on PATH$found; name one: PYTHON=/path/to/python3.13 launch/install.sh"
}

whats_wrong() { # prints why the environment cannot be used, or nothing if it can
  if [[ ! -x $venv/bin/python ]]; then
    echo "its interpreter is missing (was Python upgraded or removed?)"
  elif [[ -z $(version_of "$venv/bin/python") ]]; then
    echo "its interpreter does not run"
  elif [[ ! -f $venv/bin/pip ]] || ! isolated -c 'import pip' 2>/dev/null; then
    echo "it has no pip, so an installation was not finished"
  elif ! head -n 3 "$venv/bin/pip" | grep -qF "$venv/bin/"; then
    echo "it was made in another folder, and its commands run the files of that folder"
  elif [[ -e $venv/installing ]]; then
    echo "an installation into it was cut off before its end"
  fi
}

# -I: Python ignores PYTHONPATH and the user's own packages, because they are not part of the environment.
isolated() { "$venv/bin/python" -I "$@"; }
install() { isolated -m pip install --quiet --disable-pip-version-check "$@"; }

check_environment() { # sets version; sets wrong if the environment has to be made anew
  version='' wrong=''
  [[ -e $venv || -L $venv ]] || return 0
  if [[ ! -f $venv/pyvenv.cfg && (! -d $venv || -n $(ls -A "$venv")) ]]; then
    fail "$venv is not a Python environment; move it away, or name another folder: VENV=FOLDER launch/install.sh"
  fi
  wrong=$(whats_wrong)
  [[ -z $wrong ]] || return 0
  local theirs
  theirs=$(version_of "$venv/bin/python")
  [[ -n $(locks_for "$theirs") ]] || fail "$venv holds Python $theirs; $supported; remove $venv and run launch/install.sh again"
  if [[ -n ${PYTHON:-} ]]; then
    choose_python
    [[ $version == "$theirs" ]] ||
      fail "$venv holds Python $theirs, but PYTHON=$PYTHON is Python $version; remove $venv, or name another folder: VENV=FOLDER"
  fi
  version=$theirs
}

read_state() { # sets locks, inputs and earlier: the names of the requirements that were installed from the present files
  locks=$(locks_for "$version")
  inputs=$(cat "$locks"/*.txt launch/requirements* setup.py launch/install.sh | cksum)
  earlier=
  if [[ -f $venv/installed && $(head -n 1 "$venv/installed") == "$inputs" ]] && is_this_checkout; then
    earlier=$(tail -n 1 "$venv/installed")
  fi
}

is_this_checkout() { # whether the environment imports the package of this checkout
  isolated -c 'import importlib.util, os, sys
found = importlib.util.find_spec("vlbeit_jax")
sys.exit(found is None or not os.path.samefile(os.path.dirname(found.origin), sys.argv[1]))' vlbeit_jax 2>/dev/null
}

is_done() { # whether there is nothing to do
  check_environment
  [[ -n $version && -z $wrong ]] || return 1
  read_state
  [[ " $earlier " == *" ${extra:-package} "* ]]
}

say_how_to_activate() { # say_how_to_activate installed|before: after an installation, and to a person at a terminal
  [[ ! -t 2 && $1 == before ]] || printf 'To use it in this shell:\n  source %q\n' "${venv#"$PWD/"}/bin/activate" >&2
}

refuse_others() { # a usage error if the environment holds versions that setup.py does not allow
  local complaint
  complaint=$(isolated -m pip check --disable-pip-version-check 2>/dev/null | grep -i '^vlbeit[-_]jax ' || true)
  [[ -z $complaint ]] ||
    fail "in $venv, $complaint"$'\n'"Install a version in that range into it, or remove $venv and run launch/install.sh again."
}

make_environment() {
  choose_python
  [[ -z $wrong ]] || echo "making $venv anew: $wrong" >&2
  if ! "$python" -m venv --clear "$venv" >&2; then
    rm -rf "$venv"
    fail "'$python -m venv' failed; its message is above (on Debian and Ubuntu, install the package python$version-venv)"
  fi
}

install_libtpu() { # for tests that compile for TPUs; in a folder apart, because JAX would take it for a TPU
  install --upgrade --no-deps --target "$venv/peers/libtpu" "$(sed -n 's/^\(libtpu==[^ ]*\).*/\1/p' "$locks/requirements-tpu.txt")"
}

install_torch() { # what weights are compared with: PyTorch, and other programs in folders apart, because they need other versions
  install -r launch/requirements-torch.txt
  install --upgrade --no-deps --target "$venv/peers/transformers-4" transformers==4.57.1 huggingface_hub==0.36.2 tokenizers==0.22.2
  install --upgrade --no-deps --target "$venv/peers/torchscale" torchscale==0.3.0 fairscale==0.4.13 einops==0.8.2
}

install_for_tests() {
  install_libtpu
  if [[ $version == 3.11 ]]; then
    install_torch
  elif [[ " $earlier " != *" torch "* ]]; then
    echo "tests that need PyTorch are skipped on Python $version; this installs it: launch/install.sh torch" >&2
  fi
}

case $extra in
  "" | test | torch | tpu | cuda | gcs) ;;
  beam) # Its older libraries would replace those of the other sets.
    [[ -n ${VENV:-} ]] || fail "Beam needs an environment of its own; name one: VENV=.venv-beam launch/install.sh beam"
    ;;
  *) fail "unknown set of requirements '$extra'; give test, torch, tpu, cuda, gcs, beam or nothing" ;;
esac
if ! is_done && command -v flock >/dev/null; then # One installation at a time; the second then finds nothing to do.
  exec 9>"$venv.lock"
  flock 9
fi
if is_done; then
  refuse_others
  say_how_to_activate before
  exit 0
fi
[[ -n $version && -z $wrong ]] || make_environment
read_state
lock=$locks/requirements${extra:+-$extra}.txt
[[ $extra != torch ]] || lock=$locks/requirements.txt
echo "installing into $venv from $lock" >&2
rm -f "$venv"/installed*
touch "$venv/installing" # Removed at the end. If a later call finds it, this installation was cut off.
install --require-hashes -r "$lock"
install --no-deps --no-build-isolation --editable .
[[ $extra != test ]] || install_for_tests
[[ $extra != torch ]] || install_torch
refuse_others
printf '%s\n' "$inputs" "${earlier:-package}${extra:+ $extra}" >"$venv/installed"
rm "$venv/installing"
say_how_to_activate installed
