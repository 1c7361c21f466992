#!/usr/bin/env bash
# Checks and times vlbeit_jax on one NVIDIA GPU, the most important first. Stops after 8 minutes.
# Usage: tools/gpu_check.sh OUT [--minutes=8] [--only=NAME,NAME] [--rehearse]
# Writes rows.jsonl and gpu.md into OUT, both anew after each measurement, and a log of each command.
# Needs Python 3.11 to 3.13 (PYTHON names it) with the package's requirements and JAX for CUDA. The comparison needs PyTorch.
# --rehearse runs the same commands on the CPU with tiny sizes.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
cd "$here/.."
exec "${PYTHON:-python3}" -m tools.gpu_check "$@"
