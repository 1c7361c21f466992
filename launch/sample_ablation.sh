#!/usr/bin/env bash
# Runs the paper's ablation at the sample's scale: pretraining on pairs; on pairs and images; on pairs, images and texts; with 2,200 steps
# of pairs each.
# Usage: launch/sample_ablation.sh [WORKDIR]      default: sample_run beside setup.py
# WORKDIR holds what launch/sample.sh left; its run is the last of the three. Writes WORKDIR/ablation/ablation.json.
# Run the script again to continue where it stopped.
set -euo pipefail
# shellcheck source=launch/stages.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
begin "$@"
[[ -d $workdir/pretrain/checkpoints ]] || fail "$workdir holds no pretraining run; make it first: launch/sample.sh $(quoted "$workdir")"
mkdir -p "$workdir/ablation"

pretrain() { # pretrain NAME SCHEDULE STEPS: by configs/sample.py, with the tokenizers of the sample
  stage "" "" -m vlbeit_jax.main --config=configs/sample.py --workdir="$workdir/ablation/$1" --config.task.schedule="$2" --config.run.steps="$3" \
    --config.task.text_tokenizer="$workdir/text_tokenizer" --config.task.visual_tokenizer="$workdir/vqkd"
}
# Every second step of the sample has pairs.
pretrain pairs_run pair 2200
pretrain pairs_images_run image,pair,pair 3300
stage "" "" -m tools.transfer.ablation "$workdir/ablation" pairs="$workdir/ablation/pairs_run" \
  pairs_images="$workdir/ablation/pairs_images_run" pairs_images_texts="$workdir/pretrain"
