#!/usr/bin/env bash
# Trains on the GPUs of this machine: installs the locked packages, runs vlbeit_jax.main, and after a crash starts it again, which
# resumes from the newest checkpoint.
# Usage: launch/gpu.sh [--dry-run] ARGUMENTS of vlbeit_jax.main      relative paths start at the checkout
# Settings (environment): MAX_RESTARTS=3  RETRY_SECONDS=10  PYTHON=.venv/bin/python
# The script passes TERM, INT and HUP on to the run, which saves its step; it does not start the run again after them. The count of
# restarts returns to 0 whenever the run has saved a new step. If no restart can help, the script ends with the run's exit code
# (docs/launch.md).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
(($# > 0)) || fail "give the arguments of vlbeit_jax.main, at least --config and --workdir"
run "$top/launch/install.sh" cuda
cd "$top"
attempt=0 saved_before=$(newest_step "$@")
while true; do
  code=0
  run supervise "${PYTHON:-$top/.venv/bin/python}" -m vlbeit_jax.main "$@" || code=$?
  [[ -z $ended_by ]] && may_succeed "$code" || exit "$code"
  count_restart "$@"
  ((attempt <= ${MAX_RESTARTS:-3})) || exit "$code"
  echo "exit code $code; restart $attempt of ${MAX_RESTARTS:-3}" >&2
  sleep "${RETRY_SECONDS:-10}"
done
