"""Traces the train steps of docs/hardware.md and writes what each needs to docs/plans/needs.json.

Usage: python -m tools.trace_needs

It takes some minutes, and no accelerator. python -m tools.hardware_tables makes the page's tables
from the file.
"""

import dataclasses
import json
import pathlib
import sys

import jax

from tools.command import run
from tools.step_needs import Needs, load, needs_of
from vlbeit_jax.errors import UsageError

FILE = pathlib.Path("docs/plans/needs.json")
SIZES = ("tiny", "small", "base", "large")
CONFIGS = {size: f"configs/pretrain_base.py:{size}" for size in SIZES} | {
    "tokenizer": "configs/vqkd_base.py"
}
ONE, EIGHT, EXACT = "one device", "fsdp=8", "one device, float32"
VARIANTS: dict[str, tuple[int, str]] = {
    ONE: (1, "bfloat16"),
    EIGHT: (8, "bfloat16"),
    EXACT: (1, "float32"),
}


def trace(model: str, variant: str) -> Needs:
    """Returns what a step of one model needs in one variant."""
    fsdp, matmul = VARIANTS[variant]
    return needs_of(load(CONFIGS[model], fsdp, matmul), jax.devices()[:fsdp])


def read() -> dict[str, dict[str, Needs]]:
    """Returns what the file holds, by model and variant."""
    found = json.loads(FILE.read_text())
    return {
        model: {variant: Needs(**needs) for variant, needs in variants.items()}
        for model, variants in found.items()
    }


def main(arguments: list[str]) -> None:
    """Writes the file."""
    if arguments:
        raise UsageError(f"{arguments[0]}: this command takes no arguments")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    found: dict[str, dict[str, dict]] = {}
    for model in CONFIGS:
        for variant in VARIANTS if model in SIZES else (ONE,):
            print(f"{model}, {variant}", file=sys.stderr, flush=True)
            found.setdefault(model, {})[variant] = dataclasses.asdict(trace(model, variant))
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run(main, __doc__)
