#!/usr/bin/env bash
# What launch/sample.sh, sample_transfer.sh and sample_ablation.sh share: the folder that they work in, and stages that resume. They begin with:
#   # shellcheck source=launch/stages.sh
#   source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
#   begin "$@"
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

name=$(basename "$(readlink -f "$0")") # Of the script, also through a symlink.

begin() { # begin ARGUMENT...: sets workdir (the argument, or sample_run beside setup.py) and python; installs what is missing
  workdir=${1:-$top/sample_run}
  if (($# > 1)) || [[ $workdir == -* ]]; then
    echo "usage: launch/$name [WORKDIR]" >&2
    exit 2
  fi
  if [[ $workdir =~ ^[A-Za-z][A-Za-z0-9+.-]*:/ ]]; then
    echo "error: $workdir: launch/$name measures and compares files in a folder of this machine; name one, and copy it afterwards:" \
      "gcloud storage cp --recursive FOLDER $workdir" >&2
    exit 2
  fi
  if ! mkdir -p "$workdir" || [[ ! -w $workdir ]]; then
    echo "error: this user cannot write to $workdir; name another folder: launch/$name WORKDIR" >&2
    exit 2
  fi
  workdir=$(readlink -f -- "$workdir")
  "$top/launch/install.sh"
  cd "$top"
  python=$top/.venv/bin/python
}

stage() { # stage OUTPUT INPUTS COMMAND...: runs COMMAND, unless OUTPUT exists and was made by it from the same INPUTS; OUTPUT "": always
  printf '\n$ .venv/bin/python'
  printf ' %q' "${@:3}"
  printf '\n'
  local code=0
  supervise "$python" launch/measure.py run "$workdir" "$1" "$2" -- "$python" "${@:3}" || code=$?
  [[ -z $ended_by ]] || exit $((code ? code : 130)) # A stage may have ended well although it was asked to end.
  return "$code"
}
