#!/usr/bin/env bash
# Writes the hashed lock files from setup.py; needs uv. Run it when a bound in setup.py changes, then run the tests.
# Usage: launch/lock.sh [uv's options]      --upgrade takes the newest releases; without it a pin stays where it satisfies setup.py
# A folder of lock files serves the Python that it names; below, its second argument is the oldest Python that reads it. Versions are
# the same on every platform.
set -euo pipefail
unset CDPATH
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

lock() { # lock FOLDER PYTHON [uv's options]: PYTHON is the oldest one that reads these files
  local folder=launch/locks/$1 oldest=$2 extra
  shift 2
  local compile=(uv pip compile --quiet --universal --fork-strategy fewest --python-version "$oldest" --generate-hashes
    --no-emit-index-url --no-emit-find-links --custom-compile-command launch/lock.sh "$@")
  mkdir -p "$folder"
  "${compile[@]}" setup.py launch/requirements.in --output-file "$folder/requirements.txt"
  for extra in test tpu cuda gcs; do
    "${compile[@]}" --extra "$extra" setup.py launch/requirements.in --constraint "$folder/requirements.txt" \
      --output-file "$folder/requirements-$extra.txt"
  done
  # Beam needs older protobuf, pyarrow and pillow. All else begins with the versions of the others.
  [[ -f $folder/requirements-beam.txt ]] || cp "$folder/requirements.txt" "$folder/requirements-beam.txt"
  "${compile[@]}" --extra beam setup.py launch/requirements.in --output-file "$folder/requirements-beam.txt"
}

lock python3.11 3.11 "$@"
lock python3.13 3.12 "$@" # Python 3.12 reads the files of 3.13: every release in them supports both.
