#!/usr/bin/env bash
# What the launch scripts share. Sourced, not run: set -euo pipefail is theirs.
set -euo pipefail
dry_run=${dry_run:-false}

fail() { # fail MESSAGE...: a usage error
  printf 'error: %s\n' "$*" >&2
  exit 2
}

require() { # require NAME...: each variable is set and not empty
  local name missing=()
  for name in "$@"; do
    [[ -n ${!name:-} ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) || fail "set ${missing[*]} (see the head of ${0##*/})"
}

require_command() { # require_command NAME: it is on PATH
  $dry_run || command -v "$1" >/dev/null || fail "$1 is needed and not on PATH"
}

quoted() { # quoted WORD...: the words as a shell reads them back
  local words
  printf -v words '%q ' "$@"
  printf '%s' "${words% }"
}

run() { # run COMMAND...: shows it, and runs it unless this is a dry run
  printf '$ %s\n' "$(quoted "$@")" >&2
  $dry_run || "$@"
}

retry() { # retry COMMAND...: up to RETRIES times more where ssh lost its connection (255); any other failure is final
  local attempt code pause=${RETRY_SECONDS:-5}
  for ((attempt = 0; ; attempt++)); do
    code=0
    run "$@" || code=$?
    ((code == 255 && attempt < ${RETRIES:-5})) || return "$code"
    printf 'connection lost, again in %s s (%s of %s)\n' "$pause" "$((attempt + 1))" "${RETRIES:-5}" >&2
    sleep "$pause"
    pause=$((pause * 2))
  done
}
