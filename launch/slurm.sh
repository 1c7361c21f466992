#!/usr/bin/env bash
#SBATCH --job-name=vlbeit_jax --requeue --open-mode=append --signal=B:USR1@300
# Runs vlbeit_jax.main on nodes of a SLURM cluster, one process per GPU.
# Usage: launch/slurm.sh [--dry-run] ARGUMENTS of vlbeit_jax.main      relative paths start at the checkout
# Settings (environment):
#   NODES GPUS                number of nodes; GPUs per node, 0: no GPU options
#   TASKS=GPUS                processes per node; 1 if GPUS=0
#   NAME=vlbeit_jax  HOURS=24  SBATCH_OPTIONS="--partition=p --account=a"
#   NOTICE_SECONDS=300        this long before the time limit, the job ends the run and requeues itself
#   MAX_REQUEUES=50           times that a job requeues itself      MAX_RESTARTS=3 after crashes, each time the job starts
#   RETRY_SECONDS=10  PYTHON=.venv/bin/python
# Run launch/install.sh cuda first, on storage that all nodes see. A job that reaches its time limit, is preempted or loses a node is
# requeued and resumes from the newest checkpoint in --workdir. An exit code after which no restart can help ends the job (docs/launch.md).
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
in_job=false
if [[ ${BASH_SOURCE[0]##*/} == slurm_script ]]; then # This is the copy that Slurm made in a node's spool folder.
  in_job=true
  here=${VLBEIT_JAX_CHECKOUT:-${SLURM_SUBMIT_DIR:-}}/launch
  if [[ ! -f $here/common.sh ]]; then
    echo "error: $here is not in a checkout: it has no common.sh; submit the job with launch/slurm.sh, or with sbatch from the checkout" >&2
    exit 2
  fi
fi
# shellcheck source=launch/common.sh
source "$here/common.sh"

notice=${NOTICE_SECONDS:-300} MAX_REQUEUES=${MAX_REQUEUES:-50} MAX_RESTARTS=${MAX_RESTARTS:-3}
# shellcheck disable=SC2016 # Expanded in each task.
step() { # step ARGUMENTS...: all processes of the run
  # srun returns the highest exit code of all tasks. If one task ends with a code that no restart can mend, srun kills the others, and
  # they end with 143. So the task gives the number of such a code in final_codes, from 250. TERM goes to the whole step; the shell
  # outlives it, because its exit would end the step.
  exec srun --kill-on-bad-exit=1 --chdir="$top" bash -c \
    'source "$1"; trap : TERM; code=0; "${@:2}" || code=$?; for i in "${!final_codes[@]}"; do ((code == 0 || code != final_codes[i])) || exit $((250 + i)); done; exit "$code"' \
    task "$top/launch/common.sh" "$python" -m vlbeit_jax.main "$@"
}

requeue() { # requeue CODE: ends this start of the job and asks Slurm to start the job again
  if ((${SLURM_RESTART_COUNT:-0} >= MAX_REQUEUES)); then
    echo "error: the job has been requeued $MAX_REQUEUES times (MAX_REQUEUES); submit it again to resume the run" >&2
    exit "$1"
  fi
  echo "job $SLURM_JOB_ID requeues itself; it goes on from the newest checkpoint" >&2
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}

reached_limit() { # reached_limit PROCESS: ends all tasks; after half of NOTICE_SECONDS, no longer waits for srun
  echo "the time limit is near: ending the run" >&2
  [[ -n $1 ]] || return 0
  scancel --signal=TERM "$SLURM_JOB_ID" || true # To the tasks only, if any are left. TERM to srun would kill them at once.
  (
    sleep $((notice / 2))
    # The requeue then kills the tasks. (scancel --signal=KILL would cancel the job.)
    if kill -0 "$1" 2>/dev/null; then kill -KILL "$1"; fi
  ) &
}

job() { # job ARGUMENTS...: what runs on the first node
  local attempt code running='' limit=false ending=false pause
  trap 'signalled=true ending=true' TERM # Slurm cancels, preempts or requeues the job. It has sent TERM to the tasks too.
  trap 'signalled=true limit=true; reached_limit "$running"' USR1
  [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take this setting from sbatch.
  attempt=0 saved_before=$(cd "$top" && newest_step "$@")
  while true; do
    code=0
    step "$@" &
    running=$!
    await "$running" || code=$?
    running=
    if ((code == 0)); then exit 0; fi
    if ((code >= 250 && code - 250 < ${#final_codes[@]})); then exit "${final_codes[code - 250]}"; fi
    if $ending; then exit "$code"; fi
    if $limit; then requeue "$code"; fi
    attempt=$(cd "$top" && count_restart "$@" && echo "$attempt $saved_before")
    read -r attempt saved_before <<<"$attempt"
    ((attempt <= MAX_RESTARTS)) || exit "$code"
    echo "exit code $code; restart $attempt of $MAX_RESTARTS" >&2
    sleep "${RETRY_SECONDS:-10}" &
    pause=$!
    await "$pause"
    if $limit; then requeue "$code"; fi
    if $ending; then exit "$code"; fi
  done
}

if $in_job; then
  require_python
  job "$@"
fi
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
require NODES GPUS
HOURS=${HOURS:-24}
require_number 0 GPUS MAX_REQUEUES MAX_RESTARTS
TASKS=${TASKS:-$((GPUS > 0 ? GPUS : 1))}
NOTICE_SECONDS=$notice
require_number 1 NODES TASKS HOURS NOTICE_SECONDS
require_command sbatch
(($# > 0)) || fail "give the arguments of vlbeit_jax.main, at least --config and --workdir"
$dry_run || require_python
read -r -a options <<<"${SBATCH_OPTIONS:-}"
gpus=()
((GPUS == 0)) || gpus=(--gpus-per-node="$GPUS")
export NOTICE_SECONDS VLBEIT_JAX_CHECKOUT=$top
run sbatch --job-name="${NAME:-vlbeit_jax}" --nodes="$NODES" --ntasks-per-node="$TASKS" "${gpus[@]}" --time="$HOURS:00:00" \
  --requeue --open-mode=append --signal="B:USR1@$NOTICE_SECONDS" --export=ALL "${options[@]}" "$top/launch/slurm.sh" "$@"
