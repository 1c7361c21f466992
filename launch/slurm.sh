#!/usr/bin/env bash
# A run on GPU nodes of a SLURM cluster: one process a GPU.
# Usage: launch/slurm.sh [--dry-run] ARGUMENTS of vlbeit_jax.main
# Settings (environment): NODES, GPUS (a node); NAME=vlbeit_jax  HOURS=24  SBATCH_OPTIONS="--partition=p --account=a"
# Run launch/install.sh cuda first, on storage that all nodes see. The job is requeued when it is preempted, and goes on from the
# newest checkpoint in --workdir. Exit code 2, a mistake in the command, ends it.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -n ${SLURM_JOB_ID:-} && ${VLBEIT_JOB:-} == "$top" ]]; then # Inside the job.
  exec srun --kill-on-bad-exit=1 "$top/.venv/bin/python" -m vlbeit_jax.main "$@"
fi
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
# shellcheck source=launch/common.sh
source "$top/launch/common.sh"
require NODES GPUS
require_command sbatch
(($# > 0)) || fail "give the arguments of vlbeit_jax.main, --config and --workdir at least"
$dry_run || [[ -x $top/.venv/bin/python ]] || fail "$top/.venv is missing; run launch/install.sh cuda first"
read -r -a options <<<"${SBATCH_OPTIONS:-}"
run sbatch --job-name="${NAME:-vlbeit_jax}" --nodes="$NODES" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" --time="${HOURS:-24}:00:00" \
  --requeue --signal=TERM@300 --export=ALL,VLBEIT_JOB="$top" "${options[@]}" "$top/launch/slurm.sh" "$@"
