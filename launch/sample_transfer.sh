#!/usr/bin/env bash
# What pretraining on the sample is worth: the run that launch/sample.sh left in WORKDIR against random starts, on emoji that it has not seen.
# Usage: launch/sample_transfer.sh [WORKDIR]      default: sample_run beside setup.py
# Writes WORKDIR/transfer.json, and what led to it into WORKDIR/transfer. Run the script again to go on where it was cut off.
set -euo pipefail
# shellcheck source=launch/stages.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
begin "$@"
[[ -d $workdir/pretrain/checkpoints ]] || fail "$workdir holds no pretraining run; make it first: launch/sample.sh $(quoted "$workdir")"
mkdir -p "$workdir/transfer"
parts=(transfer/frozen.json)

stage transfer/frozen.json "pretrain/checkpoints pretrain/config.json sample:emoji" -m tools.transfer.frozen "$workdir/pretrain" \
  "$workdir/transfer/frozen.json"
stage transfer.json "${parts[*]}" -m tools.transfer.join "$workdir/transfer.json" "${parts[@]/#/$workdir/}"
