#!/usr/bin/env bash
# A run on a slice of Cloud TPU VMs: chips by a queued resource, the same command on all workers.
# Usage: launch/tpu_vm.sh [--dry-run] VERB [ARGUMENTS]
#   create                    ask for the chips, and wait until they are there
#   install                   make the workers' checkouts equal to this one and install the locked packages there. Uncommitted changes
#                             and new files are sent too; what .gitignore names (.venv, runs/, data/) is not
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
#   MAX_RESTARTS=10  WAIT_MINUTES=720  POLL_SECONDS=60  RETRIES=5  RETRY_SECONDS=5
# --workdir and data have to lie on storage that all workers see: Filestore, or a bucket that is mounted on all of them.
# shellcheck disable=SC2153 # The settings come from the environment.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
# shellcheck source=launch/checkout.sh
source "$top/launch/checkout.sh"
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }

place=()
patience=10 # Answers in a row that say nothing, before they are taken for an answer.
queued() { run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
on_workers() { # on_workers WHICH COMMAND...: on one worker or all; the words arrive as they are
  retry gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$1" --batch-size=all --command="$(quoted "${@:2}")"
}
worker() { on_workers "$1" bash vlbeit_jax/launch/worker.sh "$2" "$NAME" "${@:3}"; }

state() { # state: of the request as gcloud has it; NONE: there is none; UNKNOWN: gcloud could not say, and why is on stderr
  local errors found
  errors=$(mktemp)
  if found=$(queued describe --format='value(state.state)' 2>"$errors"); then
    echo "$found"
  elif grep -q NOT_FOUND "$errors"; then
    echo NONE
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f -- "$errors"
}

create() {
  require ACCELERATOR RUNTIME SPOT
  [[ $SPOT == true || $SPOT == false ]] || fail "SPOT=$SPOT: give true or false"
  local found spot=() asked=false silent=0 deadline=$((SECONDS + 60 * ${WAIT_MINUTES:-720}))
  if $SPOT; then spot=(--spot); fi
  while true; do
    found=NONE
    $dry_run || found=$(state)
    case $asked-$found in
      *-ACTIVE) return ;;
      false-NONE)
        queued create --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" "${spot[@]}"
        asked=true
        if $dry_run; then return; fi
        ;;
      false-SUSPENDED | false-SUSPENDING | false-FAILED) # Taken away or refused before: the request is all that is left.
        queued delete --force --quiet
        ;;
      true-SUSPENDED | true-FAILED)
        queued describe
        fail "the request for $NAME is $found: see above; launch/tpu_vm.sh delete $NAME withdraws it"
        ;;
      true-NONE | *-UNKNOWN)
        ((++silent < patience)) || fail "$NAME is $found after $silent questions: see above"
        ;;
      *-DELETING) asked=false ;;
      *) silent=0 asked=true ;; # On its way.
    esac
    ((SECONDS < deadline)) || fail "$NAME is $found after ${WAIT_MINUTES:-720} minutes; launch/tpu_vm.sh delete $NAME withdraws the request"
    sleep "${POLL_SECONDS:-60}"
  done
}

install() {
  local archive
  archive=$(mktemp -d)
  # shellcheck disable=SC2064 # The folder is meant as it is now.
  trap "rm -rf -- $(quoted "$archive")" EXIT
  run pack_checkout "$archive/vlbeit_jax.tar.gz"
  retry gcloud compute tpus tpu-vm scp "$archive/vlbeit_jax.tar.gz" "$NAME:vlbeit_jax.new.tar.gz" "${place[@]}" --worker=all --batch-size=all
  # Files that the last archive brought and this one does not have would otherwise stay, and be imported.
  # shellcheck disable=SC2016 # Expanded on the workers.
  on_workers all bash -c 'set -euo pipefail
    mkdir -p "$1"
    if [[ -f $1.tar.gz ]]; then tar -tzf "$1.tar.gz" --quoting-style=literal | tr "\n" "\0" | (cd "$1" && xargs -0 rm -f --); fi
    tar -xzf "$1.new.tar.gz" -C "$1"
    mv "$1.new.tar.gz" "$1.tar.gz"' unpack vlbeit_jax
  on_workers all bash vlbeit_jax/launch/install.sh tpu
}

watch_run() { # Prints how the run ended: a number; taken: the chips are gone; lost, unreachable: the worker is
  local said failures=0
  while true; do
    case $(state) in
      ACTIVE)
        said=$(worker 0 status) || said=unreachable
        case $said in
          ended*) echo "${said#ended }" && return ;;
          running*) failures=0 ;;
          lost) echo lost && return ;;
          *) ((++failures < patience)) || { echo unreachable && return; } ;;
        esac
        ;;
      UNKNOWN) ((++failures < patience)) || { echo unreachable && return; } ;;
      *) echo taken && return ;;
    esac
    sleep "${POLL_SECONDS:-60}"
  done
}

begin() { # begin ARGUMENTS...: chips, checkout, start. Each is a process of its own, because set -e is off within a condition.
  local self=(bash "$top/launch/tpu_vm.sh")
  if $dry_run; then self+=(--dry-run); fi
  "${self[@]}" create && "${self[@]}" install && "${self[@]}" start "$@"
}

all_of_it() {
  local attempt end code
  for ((attempt = 0; attempt <= ${MAX_RESTARTS:-10}; attempt++)); do
    code=0
    begin "$@" || code=$?
    if $dry_run; then return "$code"; fi
    if ((code == 0)); then
      end=$(watch_run)
    else
      end="it did not start: exit code $code"
      # Once a run has been under way, a step may fail because the chips are taken again. Before that, it is a mistake.
      ((attempt > 0)) || [[ $(state) == SUSPEND* ]] || exit "$code"
    fi
    case $end in
      0) echo "finished; launch/tpu_vm.sh delete $NAME gives the chips back" && return ;;
      2) # A mistake in the command: no restart would mend it.
        worker 0 log || true
        exit 2
        ;;
    esac
    echo "the run ended ($end); restart $((attempt + 1)) of ${MAX_RESTARTS:-10}" >&2
    worker all stop || true # Where there are workers left.
    sleep "${POLL_SECONDS:-60}"
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
