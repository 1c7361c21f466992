#!/usr/bin/env bash
# Functions that the launch scripts share. They source this file and begin with:
#   set -euo pipefail
#   # shellcheck source=launch/common.sh
#   source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
# readlink follows a symlink to the script and gives an absolute path. cd is not used, because CDPATH could lead it elsewhere.
set -euo pipefail
shopt -s inherit_errexit # set -e holds within $(...) too.
unset CDPATH
dry_run=${dry_run:-false}
top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")") # The checkout.

fail() { # fail MESSAGE...: a usage error
  printf 'error: %s\n' "$*" >&2
  exit 2
}

require() { # require NAME...: each variable is set and not empty
  local name missing=()
  for name in "$@"; do
    [[ -n ${!name:-} ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) || fail "set ${missing[*]} (see the head of ${0##*/})"
}

require_number() { # require_number LOWEST NAME...: each variable is a whole number of at least LOWEST
  local name lowest=$1
  for name in "${@:2}"; do
    [[ ${!name} =~ ^(0|[1-9][0-9]{0,8})$ && ${!name} -ge $lowest ]] || fail "$name=${!name}: give a whole number of at least $lowest"
  done
}

require_command() { # require_command NAME: it is on PATH
  $dry_run || command -v "$1" >/dev/null || fail "$1 is needed but not on PATH; install it, or add its folder to PATH"
}

require_python() { # require_python: sets python to the interpreter that has the package: PYTHON, or the one of .venv
  python=${PYTHON:-$top/.venv/bin/python}
  command -v "$python" >/dev/null || fail "$python is missing; run launch/install.sh first, or name an interpreter: PYTHON=/path/to/python"
}

quoted() { # quoted WORD...: the words as a shell reads them back
  local words
  printf -v words '%q ' "$@"
  printf '%s' "${words% }"
}

run() { # run COMMAND...: shows it, and runs it unless this is a dry run
  printf '$ %s\n' "$(quoted "$@")" >&2
  $dry_run || "$@"
}

retry() { # retry COMMAND...: repeats it up to RETRIES times if ssh loses its connection (255); any other failure is final
  local attempt code pause=${RETRY_SECONDS:-5}
  for ((attempt = 0; ; attempt++)); do
    code=0
    run "$@" || code=$?
    ((code == 255 && attempt < ${RETRIES:-5})) || return "$code"
    printf 'connection lost; trying again in %s s (%s of %s)\n' "$pause" "$((attempt + 1))" "${RETRIES:-5}" >&2
    sleep "$pause"
    pause=$((pause * 2))
  done
}

final_codes=(0 2 65 66 67 130) # Exit codes after which the same command cannot succeed, or need not, as vlbeit_jax/errors.py has them.

may_succeed() { # may_succeed CODE: whether the same command may succeed if it is run again
  [[ " ${final_codes[*]} " != *" $1 "* ]]
}

newest_in_bucket() { # newest_in_bucket FOLDER: as newest_step; 0 also if the bucket cannot be read, which the run itself will tell
  "${PYTHON:-$top/.venv/bin/python}" -c 'import sys
from vlbeit_jax.places import place
found = place(sys.argv[1]).glob("checkpoints/*/commit_success.txt")
print(max((int(path.parent.name) for path in found if path.parent.name.isdecimal()), default=0))' "$1" || echo 0
}

newest_step() { # newest_step ARGUMENTS...: prints the newest step that is saved in --workdir; 0 without one
  local argument folder='' previous='' step newest=0
  for argument in "$@"; do
    case $argument in --workdir=* | -workdir=*) folder=${argument#*=} ;; esac
    case $previous in --workdir | -workdir) folder=$argument ;; esac
    previous=$argument
  done
  if [[ $folder == gs://* ]]; then
    newest_in_bucket "$folder"
    return
  fi
  for step in "$folder"/checkpoints/*; do
    step=${step##*/}
    [[ ! $step =~ ^[0-9]+$ ]] || ((10#$step <= newest)) || newest=$((10#$step))
  done
  echo "$newest"
}

count_restart() { # count_restart ARGUMENTS...: adds 1 to attempt, which begins anew if a step was saved since the last call
  local now
  now=$(newest_step "$@")
  ((now <= ${saved_before:=0})) || attempt=0
  saved_before=$now
  attempt=$((attempt + 1))
}

signalled=false
await() { # await PROCESS: waits for its end, and returns its exit code. A signal whose trap sets signalled=true does not end the waiting
  local code
  while true; do
    signalled=false code=0
    wait "$1" || code=$?
    $signalled || return "$code"
  done
}

# The signal that supervise passed on.
# shellcheck disable=SC2034 # Read by the scripts.
ended_by=
supervise() { # supervise COMMAND...: runs it, passes TERM, INT and HUP on to it and its children, and returns its exit code
  local child code=0 signal
  set -m # In a process group of its own the child does not ignore Ctrl-C, and one signal reaches it and its children.
  "$@" &
  child=$!
  set +m
  for signal in TERM INT HUP; do
    # shellcheck disable=SC2064 # Signal and child have to be expanded now.
    trap "signalled=true ended_by=$signal; kill -$signal -- -$child 2>/dev/null || true" "$signal"
  done
  await "$child" || code=$?
  trap - TERM INT HUP
  return "$code"
}
