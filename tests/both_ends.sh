#!/usr/bin/env bash
# Whether .venv and the environment of the newest Python (tests/core.sh makes it) train alike on the sample: the same batches and
# visual tokens, the same losses in the first step, and after 400 steps accuracies no further apart than those of two seeds.
# Usage: tests/both_ends.sh SAMPLE_RUN [WORKDIR]      SAMPLE_RUN is what launch/sample.sh made; WORKDIR, by default SAMPLE_RUN/ends,
# gets three short runs. NEWEST names the other environment; default: .venv-3.13. It takes about five minutes on two idle cores.
set -euo pipefail
unset CDPATH
if (($# < 1 || $# > 2)) || [[ ! -d $1/pretrain ]]; then
  echo "usage: tests/both_ends.sh SAMPLE_RUN [WORKDIR], where SAMPLE_RUN is a folder that launch/sample.sh made" >&2
  exit 2
fi
sample=$(realpath "$1")
work=${2:-$sample/ends}
mkdir -p "$work"
work=$(realpath "$work")
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
tested=.venv/bin/python
newest=${NEWEST:-.venv-3.13}/bin/python
for python in "$tested" "$newest"; do
  if ! "$python" -c 'import vlbeit_jax'; then
    echo "error: $python does not run or has no vlbeit_jax; tests/core.sh makes .venv-3.13, launch/install.sh test makes .venv" >&2
    exit 2
  fi
done
texts=$("$tested" -c 'import sys; print((sys.argv[1],))' "$sample/tokens")

train() { # train PYTHON SEED NAME: 400 steps of the sample's recipe
  "$1" -m vlbeit_jax.main --config=configs/sample.py --workdir="$work/$3" --config.run.steps=400 --config.run.seed="$2" \
    --config.task.text_tokenizer="$sample/text_tokenizer" --config.task.visual_tokenizer="$sample/vqkd" \
    --config.task.text.sources="$texts"
}

"$tested" -m tests.digests "$sample/pretrain" >"$work/tested.json"
"$newest" -m tests.digests "$sample/pretrain" --against="$work/tested.json" >"$work/newest.json"
train "$tested" 0 tested
train "$newest" 0 newest
train "$tested" 1 other_seed
"$tested" -m tests.accuracies "$work/tested" "$work/newest" "$work/other_seed"
