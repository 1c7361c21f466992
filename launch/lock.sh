#!/usr/bin/env bash
# Writes the hashed lock files anew from setup.py; needs uv. Run it when a bound in setup.py changes, then run the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lock=(uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command launch/lock.sh)
"${lock[@]}" setup.py launch/requirements.in --output-file launch/requirements.txt
for extra in test tpu cuda; do
  "${lock[@]}" --extra "$extra" setup.py launch/requirements.in --constraint launch/requirements.txt \
    --output-file "launch/requirements-$extra.txt"
done
