#!/usr/bin/env bash
# Starts one host's part of a run in the background, and prints its state and log. launch/tpu_vm.sh calls this on each host.
# Usage: launch/worker.sh start RUN ARGUMENTS of vlbeit_jax.main... | saved RUN ARGUMENTS | status RUN | log RUN [LINES] | stop RUN
# saved prints the newest step that is saved in the --workdir of ARGUMENTS.
# RUN names a folder in ~/vlbeit_jax_runs (RUNS names another place). It holds log, process and, after the end, exit_code.
# Relative paths in ARGUMENTS start at the checkout. Settings (environment): RUNS  STOP_SECONDS=60  PYTHON=.venv/bin/python
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
if (($# < 2)) || [[ ! $2 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
  echo "usage: launch/worker.sh start|saved|status|log|stop RUN [ARGUMENTS]; RUN may contain letters, digits, . _ -" >&2
  exit 2
fi
runs=${RUNS:-${HOME:+$HOME/vlbeit_jax_runs}}
[[ -n $runs ]] || fail "HOME is not set; set RUNS to the folder for logs"
[[ $runs != *://* ]] || fail "RUNS=$runs: each worker keeps its log on its own disk; only --workdir may be in a bucket"
verb=$1 folder=$(realpath -m -- "$runs")/$2
shift 2

identity() { # identity PROCESS: prints its start time and the boot of this machine; another process of the same id differs in one of them
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -r -a stat <<<"${stat##*) }" # The name before it may hold spaces and brackets.
  echo "${stat[19]} $(</proc/sys/kernel/random/boot_id)"
}

alive() { # alive: whether the run goes on; sets process to its leader
  local started
  [[ -f $folder/process ]] && read -r process started <"$folder/process" && [[ -n $started && $(identity "$process") == "$started" ]]
}

case $verb in
  start)
    if alive; then fail "$folder: process $process is running already; stop it first: launch/worker.sh stop ${folder##*/}"; fi
    mkdir -p "$folder"
    rm -f "$folder/exit_code" "$folder/process"
    cd "$top"
    # A session of its own outlives the connection, and one signal ends all of it. Its leader outlives TERM and writes the exit code.
    # shellcheck disable=SC2016 # Expanded by the inner shell.
    setsid bash -c 'trap : TERM; code=0; "${@:2}" || code=$?; echo "$code" >"$1/exit_code.new"; mv "$1/exit_code.new" "$1/exit_code"' \
      worker "$folder" "${PYTHON:-$top/.venv/bin/python}" -m vlbeit_jax.main "$@" >>"$folder/log" 2>&1 </dev/null &
    process=$! # Leader of the session and its process group, because setsid does not have to fork here.
    echo "$process $(identity "$process")" >"$folder/process.new"
    mv "$folder/process.new" "$folder/process"
    echo "started process $process; its log is $folder/log"
    ;;
  saved)
    cd "$top"
    newest_step "$@"
    ;;
  status)
    if [[ -f $folder/exit_code ]]; then
      echo "ended $(<"$folder/exit_code")"
    elif alive; then
      echo "running $process"
    elif [[ -f $folder/process ]]; then
      echo "lost" # No exit code: the host went down, or somebody killed it.
    else
      echo "none"
    fi
    ;;
  log)
    [[ -f $folder/log ]] || fail "$folder/log is missing: no run of this name was started here; launch/worker.sh start starts one"
    tail -n "${1:-50}" "$folder/log"
    ;;
  stop)
    alive || exit 0
    kill -TERM -- "-$process"
    for ((second = 0; second < ${STOP_SECONDS:-60}; second++)); do
      alive || exit 0
      sleep 1
    done
    kill -KILL -- "-$process"
    ;;
  *) fail "unknown verb '$verb'; there are start, saved, status, log, stop" ;;
esac
