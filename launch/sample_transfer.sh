#!/usr/bin/env bash
# Measures what pretraining on the sample is worth: compares the run that launch/sample.sh left in WORKDIR with random starts, on emoji
# that it has not seen.
# Usage: launch/sample_transfer.sh [WORKDIR]                default: sample_run beside setup.py
#        ALL_RATES=1 launch/sample_transfer.sh [WORKDIR]    each start tries three or four learning rates, not only the one that suits the sample's run
# Writes WORKDIR/transfer.json, pictures with answers into WORKDIR/transfer.html, and all runs behind them into WORKDIR/transfer. Run the
# script again to continue where it stopped.
set -euo pipefail
# shellcheck source=launch/stages.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
begin "$@"
[[ -d $workdir/pretrain/checkpoints ]] || fail "$workdir holds no pretraining run; make it first: launch/sample.sh $(quoted "$workdir")"
mkdir -p "$workdir/transfer"
rates=()
case ${ALL_RATES:-} in
  "" | 0) ;;
  1) rates=(--all_rates) ;;
  *) fail "ALL_RATES=$ALL_RATES: give 1 for all rates, or nothing" ;;
esac
run="pretrain/checkpoints pretrain/config.json"
parts=(transfer/frozen.json)
stage transfer/frozen.json "$run sample:emoji" -m tools.transfer.frozen "$workdir/pretrain" "$workdir/transfer/frozen.json"

finetune() { # finetune TASK: many short runs; the command knows which of them are finished, and whether the recipe has changed
  parts+=("transfer/$1/results.json")
  stage "" "" -m tools.transfer.finetune "$1" "$workdir/pretrain" "$workdir/transfer/$1" ${rates[@]+"${rates[@]}"}
}
finetune emoji_category
finetune retrieval
finetune vqa_cell
finetune segmentation
stage transfer.json "${parts[*]}" -m tools.transfer.join "$workdir/transfer.json" "${parts[@]/#/$workdir/}"
stage transfer.html "transfer.json ${parts[*]}" -m tools.transfer.pictures "$workdir/transfer.json" "$workdir/transfer" "$workdir/transfer.html"
