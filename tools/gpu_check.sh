#!/usr/bin/env bash
# Checks and times vlbeit_jax on one NVIDIA GPU, the most important first, and stops by itself after 8 minutes.
# Usage: tools/gpu_check.sh OUT [--minutes=8] [--only=NAME,NAME] [--rehearse]
# OUT gets rows.jsonl, gpu.md (both are written anew after each measurement) and a log of each command.
# Needs Python 3.11 to 3.13 with the package's requirements (PYTHON names it), JAX for CUDA and, for the peer, PyTorch.
# --rehearse runs the same commands on the CPU with tiny sizes.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
cd "$here/.."
exec "${PYTHON:-python3}" -m tools.gpu_check "$@"
