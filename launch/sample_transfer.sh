#!/usr/bin/env bash
# Measures what pretraining on the sample is worth: compares the run that launch/sample.sh left in WORKDIR with random starts, on emoji
# that it has not seen.
# Usage: launch/sample_transfer.sh [WORKDIR]      default: sample_run beside setup.py
# Writes WORKDIR/transfer.json, pictures with answers into WORKDIR/transfer.html, and all runs behind them into WORKDIR/transfer. Run the
# script again to continue where it stopped.
set -euo pipefail
# shellcheck source=launch/stages.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
begin "$@"
[[ -d $workdir/pretrain/checkpoints ]] || fail "$workdir holds no pretraining run; make it first: launch/sample.sh $(quoted "$workdir")"
mkdir -p "$workdir/transfer"
run="pretrain/checkpoints pretrain/config.json"
parts=(transfer/frozen.json)
stage transfer/frozen.json "$run sample:emoji" -m tools.transfer.frozen "$workdir/pretrain" "$workdir/transfer/frozen.json"

finetune() { # finetune TASK: many short runs; the command knows which of them are finished, and whether the recipe has changed
  parts+=("transfer/$1/results.json")
  stage "" "" -m tools.transfer.finetune "$1" "$workdir/pretrain" "$workdir/transfer/$1"
}
finetune emoji_category
finetune retrieval
finetune vqa_cell
finetune segmentation
stage transfer.json "${parts[*]}" -m tools.transfer.join "$workdir/transfer.json" "${parts[@]/#/$workdir/}"
stage transfer.html "transfer.json ${parts[*]}" -m tools.transfer.pictures "$workdir/transfer.json" "$workdir/transfer" "$workdir/transfer.html"
