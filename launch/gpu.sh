#!/usr/bin/env bash
# A run on the GPUs of this machine: installs the locked packages, trains, and starts again from the newest checkpoint after a crash.
# Usage: launch/gpu.sh [--dry-run] ARGUMENTS of vlbeit_jax.main      relative paths start at the checkout
# Settings (environment): MAX_RESTARTS=3  RETRY_SECONDS=10  PYTHON=.venv/bin/python
# TERM, INT and HUP are passed on to the run, and nothing starts again after them.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
(($# > 0)) || fail "give the arguments of vlbeit_jax.main, at least --config and --workdir"
run "$top/launch/install.sh" cuda
cd "$top"
for ((attempt = 0; ; attempt++)); do
  code=0
  run supervise "${PYTHON:-$top/.venv/bin/python}" -m vlbeit_jax.main "$@" || code=$?
  case $code in
    0 | 2 | 130) exit "$code" ;; # Done, a mistake in the command, Ctrl-C.
  esac
  [[ -z $ended_by ]] && ((attempt < ${MAX_RESTARTS:-3})) || exit "$code"
  echo "exit code $code; restart $((attempt + 1)) of ${MAX_RESTARTS:-3}" >&2
  sleep "${RETRY_SECONDS:-10}"
done
