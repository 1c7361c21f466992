#!/usr/bin/env bash
# One host's part of a run: starts it in the background and says how it is. The other launch scripts call this on each host.
# Usage: launch/worker.sh start RUN ARGUMENTS of vlbeit_jax.main... | status RUN | log RUN [LINES] | stop RUN
# RUN names a folder in ~/vlbeit_jax_runs (RUNS names another place) with log, pid and, in the end, exit_code.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$top/.venv/bin/python}
if (($# < 2)) || [[ ! $2 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
  echo "usage: launch/worker.sh start|status|log|stop RUN [ARGUMENTS]; RUN is letters, digits, . _ -" >&2
  exit 2
fi
verb=$1 folder=${RUNS:-$HOME/vlbeit_jax_runs}/$2
shift 2

alive() { [[ -f $folder/pid ]] && kill -0 "$(<"$folder/pid")" 2>/dev/null; }

case $verb in
  start)
    if alive; then
      echo "error: $folder: process $(<"$folder/pid") is running already" >&2
      exit 2
    fi
    mkdir -p "$folder"
    rm -f "$folder/exit_code"
    cd "$top"
    # A session of its own, which outlives the connection and can be ended as a whole.
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid bash -c 'echo $$ >"$1/pid.new" && mv "$1/pid.new" "$1/pid"; shift; code=0; "${@:2}" || code=$?; echo "$code" >"$1"' \
      worker "$folder" "$folder/exit_code" "$python" -m vlbeit_jax.main "$@" >>"$folder/log" 2>&1 </dev/null &
    until [[ -f $folder/pid ]] && { alive || [[ -f $folder/exit_code ]]; }; do sleep 0.05; done
    echo "started, log in $folder/log"
    ;;
  status)
    if [[ -f $folder/exit_code ]]; then
      echo "ended $(<"$folder/exit_code")"
    elif alive; then
      echo "running $(<"$folder/pid")"
    elif [[ -f $folder/pid ]]; then
      echo "lost" # No exit code: the host went down, or somebody killed it.
    else
      echo "none"
    fi
    ;;
  log)
    tail -n "${1:-50}" "$folder/log"
    ;;
  stop)
    alive || exit 0
    group=$(<"$folder/pid")
    kill -TERM -- "-$group"
    for ((second = 0; second < ${STOP_SECONDS:-60}; second++)); do
      alive || exit 0
      sleep 1
    done
    kill -KILL -- "-$group"
    ;;
  *)
    echo "error: unknown verb $verb; there are start, status, log, stop" >&2
    exit 2
    ;;
esac
