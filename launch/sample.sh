#!/usr/bin/env bash
# The whole recipe on the data in the package, offline, on this machine: tokenizers, pretraining, evaluation, report.
# Usage: launch/sample.sh [WORKDIR]      default: sample_run beside setup.py
# Every stage is a plain command, printed before it runs. Run the script again to go on where it was cut off.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
workdir=${1:-$top/sample_run}
if (($# > 1)) || [[ $workdir == -* ]]; then
  echo "usage: launch/sample.sh [WORKDIR]" >&2
  exit 2
fi
if ! mkdir -p "$workdir" || [[ ! -w $workdir ]]; then
  echo "error: $workdir cannot be written to; name another folder" >&2
  exit 2
fi
workdir=$(cd "$workdir" && pwd)
"$top/launch/install.sh"
cd "$top"
python=$top/.venv/bin/python

stage() { # stage OUTPUT COMMAND...: runs the command unless its output is there; no output named: always
  local output=$1
  shift
  if [[ -n $output && -e $output ]]; then
    echo "finished already: $output"
    return
  fi
  printf '\n$ .venv/bin/python'
  printf ' %q' "$@"
  printf '\n'
  "$python" launch/measure.py run "$workdir/stages.jsonl" -- "$python" "$@"
}

stage "$workdir/text_tokenizer" -m vlbeit_jax.text_tokenizer --data=sample:pairs --data=sample:texts \
  --vocabulary=2000 --max_megabytes=3 --out="$workdir/text_tokenizer"
stage "$workdir/tokens" -m vlbeit_jax.prepare --kind=tokens --input=sample:texts \
  --text_tokenizer="$workdir/text_tokenizer" --length=64 --out="$workdir/tokens"
stage "" -m vlbeit_jax.main --config=configs/sample_vqkd.py --workdir="$workdir/vqkd"
stage "" -m vlbeit_jax.main --config=configs/sample.py --workdir="$workdir/pretrain" \
  --config.data.text_tokenizer="$workdir/text_tokenizer" --config.data.visual_tokenizer="$workdir/vqkd" \
  --config.data.text.sources="('$workdir/tokens',)"
stage "$workdir/evaluation.json" -m vlbeit_jax.evaluate --from="$workdir/pretrain" --data=sample:pairs --data=sample:texts \
  --draws=16 --json="$workdir/evaluation.json"
stage "$workdir/report.html" -m vlbeit_jax.report --from="$workdir/pretrain" --data=sample:pairs \
  --results="$workdir/evaluation.json" --out="$workdir"
"$python" launch/measure.py results "$workdir"
