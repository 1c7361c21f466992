#!/usr/bin/env bash
# Runs vlbeit_jax.main on a slice of Cloud TPU VMs: asks for chips by a queued resource, and runs the same command on all workers.
# Usage: launch/tpu_vm.sh [--dry-run] VERB [ARGUMENTS]
#   create                    ask for the chips, and wait until they are there
#   install                   make the workers' checkouts equal to this one and install the locked packages there. Send uncommitted
#                             changes and new files too, but not what .gitignore names (.venv, runs/, data/)
#   start ARGUMENTS           start python -m vlbeit_jax.main ARGUMENTS on all workers, in the background
#   run ARGUMENTS             create, install and start, then wait for the end. If the chips are taken away, ask for them again and
#                             resume the run from its newest checkpoint, at most MAX_RESTARTS times without a new step
#   status | log [LINES]      print the state of the chips and of every worker | the log of worker 0
#   stop                      end the run; the chips stay, and still cost money
#   delete NAME               give the chips back; repeat NAME, so that none are deleted by accident
# Settings (environment):
#   NAME PROJECT ZONE         of the slice
#   ACCELERATOR RUNTIME       e.g. v5litepod-256 and v2-alpha-tpuv5-lite; v5p-128 and v2-alpha-tpuv5 (create, run)
#   SPOT                      true: cheaper, but Google may take the chips away; false: on demand (create, run)
#   MAX_RESTARTS=10  WAIT_MINUTES=720  POLL_SECONDS=60  RETRIES=5  RETRY_SECONDS=5
# --workdir and data have to be on storage that all workers see: gs://BUCKET/NAME (docs/buckets.md), Filestore, or a mounted bucket.
# shellcheck disable=SC2153 # The settings come from the environment.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
# shellcheck source=launch/checkout.sh
source "$top/launch/checkout.sh"
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }

place=()
patience=10 # After this many answers in a row without a state, give up.
queued() { run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"; }
on_workers() { # on_workers WHICH COMMAND...: on one worker or all; the words arrive as they are
  retry gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$1" --batch-size=all --command="$(quoted "${@:2}")"
}
worker() { on_workers "$1" bash vlbeit_jax/launch/worker.sh "$2" "$NAME" "${@:3}"; }

state() { # state: prints the state of the request; NONE: there is none; UNKNOWN: gcloud could not tell, and stderr has its message
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
      false-SUSPENDED | false-SUSPENDING | false-FAILED) # Google took the chips away or refused them earlier; only the request is left.
        queued delete --force --quiet
        ;;
      true-SUSPENDED | true-FAILED)
        queued describe
        fail "the request for $NAME is $found; Google's answer is above; to withdraw it: launch/tpu_vm.sh delete $NAME"
        ;;
      true-NONE | *-UNKNOWN)
        ((++silent < patience)) || fail "$NAME is $found after $silent questions; see the messages above, then try again"
        ;;
      *-DELETING) asked=false ;;
      *) silent=0 asked=true ;; # Google is working on it.
    esac
    ((SECONDS < deadline)) || fail "$NAME is $found after ${WAIT_MINUTES:-720} minutes; to withdraw it: launch/tpu_vm.sh delete $NAME"
    sleep "${POLL_SECONDS:-60}"
  done
}

install() {
  local archive
  archive=$(mktemp -d)
  # shellcheck disable=SC2064 # The folder has to be expanded now.
  trap "rm -rf -- $(quoted "$archive")" EXIT
  run pack_checkout "$archive/vlbeit_jax.tar.gz"
  retry gcloud compute tpus tpu-vm scp "$archive/vlbeit_jax.tar.gz" "$NAME:vlbeit_jax.new.tar.gz" "${place[@]}" --worker=all --batch-size=all
  # Otherwise files that are in the last archive and not in this one would stay, and Python could import them.
  # shellcheck disable=SC2016 # Expanded on the workers.
  on_workers all bash -c 'set -euo pipefail
    mkdir -p "$1"
    if [[ -f $1.tar.gz ]]; then tar -tzf "$1.tar.gz" --quoting-style=literal | tr "\n" "\0" | (cd "$1" && xargs -0 rm -f --); fi
    tar -xzf "$1.new.tar.gz" -C "$1"
    mv "$1.new.tar.gz" "$1.tar.gz"' unpack vlbeit_jax
  on_workers all bash vlbeit_jax/launch/install.sh tpu
}

watch_run() { # Prints how the run ended: its exit code; taken: the chips are gone; lost or unreachable: the worker is
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

begin() { # begin ARGUMENTS...: create, install, start. Each is a process of its own, because set -e is off within a condition.
  local self=(bash "$top/launch/tpu_vm.sh")
  if $dry_run; then self+=(--dry-run); fi
  "${self[@]}" create && "${self[@]}" install && "${self[@]}" start "$@"
}

all_of_it() {
  local attempt end code now saved=0
  for ((attempt = 0; attempt <= ${MAX_RESTARTS:-10}; attempt++)); do
    code=0
    begin "$@" || code=$?
    if $dry_run; then return "$code"; fi
    if ((code == 0)); then
      now=$(worker 0 saved "$@") || now=0 # Only the workers may see --workdir.
      if [[ $now =~ ^[0-9]+$ ]] && ((now > saved)); then attempt=0 saved=$now; fi
      end=$(watch_run)
    else
      end="it did not start: exit code $code"
      # After a first start, a command may fail because Google takes the chips again. Before that, a failure is a mistake.
      ((attempt > 0)) || [[ $(state) == SUSPEND* ]] || exit "$code"
    fi
    case $end in
      0) echo "the run has finished; to give the chips back: launch/tpu_vm.sh delete $NAME" && return ;;
      [0-9]*) # Such as a mistake in the command.
        if ! may_succeed "$end"; then
          worker 0 log || true
          exit "$end"
        fi
        ;;
    esac
    echo "the run ended ($end); restart $((attempt + 1)) of ${MAX_RESTARTS:-10}" >&2
    worker all stop || true # On the workers that are left.
    sleep "${POLL_SECONDS:-60}"
  done
  fail "gave up after ${MAX_RESTARTS:-10} restarts without a new step; to see why: launch/tpu_vm.sh log; to give the chips back: launch/tpu_vm.sh delete $NAME"
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
    [[ ${1:-} == "$NAME" ]] || fail "to delete the slice, repeat its name: launch/tpu_vm.sh delete $NAME"
    queued delete --force --quiet
    ;;
  *) "$verb" ;;
esac
