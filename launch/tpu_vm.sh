#!/usr/bin/env bash
# A run on a slice of Cloud TPU VMs: chips by a queued resource, the same command on all workers.
# Usage: launch/tpu_vm.sh [--dry-run] VERB [ARGUMENTS]
#   create                    ask for the chips, and wait until they are there
#   install                   copy this checkout to all workers and install the locked packages there
#   start ARGUMENTS           python -m vlbeit_jax.main ARGUMENTS on all workers, in the background
#   run ARGUMENTS             all three, then wait for the end; chips that are taken away are asked for again, and the run goes on
#                             from its newest checkpoint, MAX_RESTARTS times
#   status | log [LINES]      of the chips and of every worker | of worker 0
#   stop                      end the run; the chips stay (and cost)
#   delete NAME               give the chips back; NAME is said again, so that none is deleted by accident
# Settings (environment):
#   NAME PROJECT ZONE         of the slice
#   ACCELERATOR RUNTIME       e.g. v5litepod-256 and v2-alpha-tpuv5-lite; v5p-128 and v2-alpha-tpuv5 (create, run)
#   SPOT                      true: cheaper and may be taken away; false: on demand (create, run)
#   MAX_RESTARTS=10  WAIT_MINUTES=720  POLL_SECONDS=60  RETRIES=5
# --workdir and data have to lie on storage that all workers see: Filestore, or a bucket that is mounted on all of them.
# shellcheck disable=SC2153 # The settings come from the environment.
set -euo pipefail
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$top/launch/common.sh"

place=()
queued() { run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
on_workers() { # on_workers WHICH COMMAND...: on one worker or all; the words arrive as they are
  retry gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$1" --batch-size=all --command="$(quoted "${@:2}")"
}
worker() { on_workers "$1" bash vlbeit_jax/launch/worker.sh "$2" "$NAME" "${@:3}"; }
state() { queued describe --format='value(state.state)' 2>/dev/null || echo NONE; }

create() {
  require ACCELERATOR RUNTIME SPOT
  [[ $SPOT == true || $SPOT == false ]] || fail "SPOT=$SPOT: give true or false"
  local found spot=() deadline=$((SECONDS + 60 * ${WAIT_MINUTES:-720}))
  if $SPOT; then spot=(--spot); fi
  found=$($dry_run || state)
  case $found in
    SUSPENDED | SUSPENDING | FAILED) queued delete --force --quiet && found=NONE ;; # Taken away: the request is all that is left.
  esac
  if [[ $found == NONE ]] || $dry_run; then
    queued create --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" "${spot[@]}"
  fi
  until $dry_run || [[ $found == ACTIVE ]]; do
    ((SECONDS < deadline)) || fail "$NAME is $found after ${WAIT_MINUTES:-720} minutes; launch/tpu_vm.sh delete $NAME withdraws the request"
    [[ $found != FAILED && $found != SUSPENDED ]] || return 1
    sleep "${POLL_SECONDS:-60}"
    found=$(state)
  done
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  run git -C "$top" archive --format=tar.gz --prefix=vlbeit_jax/ --output="$archive" HEAD
  retry gcloud compute tpus tpu-vm scp "$archive" "$NAME:vlbeit_jax.tar.gz" "${place[@]}" --worker=all --batch-size=all
  rm -f "$archive"
  on_workers all tar -xzf vlbeit_jax.tar.gz
  on_workers all bash vlbeit_jax/launch/install.sh tpu
}

watch_run() { # Prints how the run ended: a number; taken: the chips are gone; lost, unreachable: the worker is
  local said failures=0
  while true; do
    [[ $(state) == ACTIVE ]] || { echo taken && return; }
    said=$(worker 0 status) || said=unreachable
    case $said in
      ended*) echo "${said#ended }" && return ;;
      running*) failures=0 ;;
      lost) echo lost && return ;;
      *) ((++failures < 10)) || { echo unreachable && return; } ;;
    esac
    sleep "${POLL_SECONDS:-60}"
  done
}

all_of_it() {
  local attempt end
  for ((attempt = 0; attempt <= ${MAX_RESTARTS:-10}; attempt++)); do
    if create && install && worker all start "$@"; then
      if $dry_run; then return; fi
      end=$(watch_run)
    else
      end="no start"
    fi
    case $end in
      0) echo "finished; launch/tpu_vm.sh delete $NAME gives the chips back" && return ;;
      2) worker 0 log && exit 2 ;; # A mistake in the command: no restart would mend it.
    esac
    echo "the run ended ($end); restart $((attempt + 1)) of ${MAX_RESTARTS:-10}" >&2
    worker all stop || true # Where there are workers left.
  done
  fail "given up after ${MAX_RESTARTS:-10} restarts; launch/tpu_vm.sh log shows why, delete $NAME gives the chips back"
}

verb=${1:-}
shift || true
case $verb in
  create | install | start | run | status | log | stop | delete) ;;
  *) fail "unknown verb '$verb'; there are create, install, start, run, status, log, stop, delete (see the head of $0)" ;;
esac
require NAME PROJECT ZONE
require_command gcloud
place=(--project="$PROJECT" --zone="$ZONE")
case $verb in
  start) worker all start "$@" ;;
  run) all_of_it "$@" ;;
  status)
    echo "chips: $(state)"
    worker all status
    ;;
  log) worker 0 log "$@" ;;
  stop) worker all stop ;;
  delete)
    [[ ${1:-} == "$NAME" ]] || fail "delete needs the slice's name once more: launch/tpu_vm.sh delete $NAME"
    queued delete --force --quiet
    ;;
  *) "$verb" ;;
esac
