#!/usr/bin/env bash
# Runs the whole recipe on the data in the package, offline, on this machine: tokenizers, pretraining, evaluation, report.
# Usage: launch/sample.sh [WORKDIR]      default: sample_run beside setup.py
# Every stage is a plain command, which the script prints before it runs it. Run the script again to continue where it stopped.
set -euo pipefail
# shellcheck source=launch/stages.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stages.sh"
begin "$@"

tuple() { # tuple PATH: prints a tuple with PATH, quoted as a configuration field reads it
  "$python" -c 'import sys; print((sys.argv[1],))' "$1"
}

stage text_tokenizer "sample:pairs sample:texts" -m vlbeit_jax.text_tokenizer --data=sample:pairs --data=sample:texts \
  --vocabulary=2000 --max_megabytes=3 --out="$workdir/text_tokenizer"
stage tokens "text_tokenizer sample:texts" -m vlbeit_jax.prepare --kind=tokens --input=sample:texts \
  --text_tokenizer="$workdir/text_tokenizer" --length=64 --out="$workdir/tokens"
stage "" "" -m vlbeit_jax.main --config=configs/sample_vqkd.py --workdir="$workdir/vqkd"
texts=$(tuple "$workdir/tokens")
stage "" "" -m vlbeit_jax.main --config=configs/sample.py --workdir="$workdir/pretrain" \
  --config.task.text_tokenizer="$workdir/text_tokenizer" --config.task.visual_tokenizer="$workdir/vqkd" \
  --config.task.text.sources="$texts"
stage evaluation.json "pretrain/checkpoints pretrain/config.json sample:pairs sample:texts" -m vlbeit_jax.evaluate --from="$workdir/pretrain" \
  --data=sample:pairs --data=sample:texts --draws=16 --json="$workdir/evaluation.json"
stage report.html "pretrain/checkpoints pretrain/config.json evaluation.json sample:pairs tokens" -m vlbeit_jax.report \
  --from="$workdir/pretrain" --results="$workdir/evaluation.json" --out="$workdir"
"$python" launch/measure.py results "$workdir"
