"""Three train steps give the same bits as when their digests were recorded.

A change that should not alter results must keep these digests. Floating-point sums depend on the
compiler and on the processor, so a digest is only compared where it was recorded. To add digests of
this machine, run this file with VLBEIT_RECORD=1 at the commit to compare with. On any machine,
``tests/lowered_steps.py`` compares the programs of two checkouts.

The steps are taken in another process, which compiles them as when the digests were recorded.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import sys
import zlib

import jax
import numpy as np
import pytest

from tests import lowered_steps, processes, tiny
from tests.quick_compilation import FAST_COMPILE
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.runtime.synthetic import random_batches
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.types import Positions

RECORDED = pathlib.Path(__file__).parent / "golden.json"
WORLD = tiny.world_in(pathlib.Path("nowhere"))  # Nothing is read: batches are random.


def sized(config, rows=16, **model):
    """A configuration of the tests with larger batches, which the meshes below divide."""
    streams = {name: {"batch_size": rows} for name in ("image", "text", "pair")}
    tokenizer = tiny.vqkd_config(WORLD).task.model
    return tiny.changed(config, task={"model": model, "tokenizer_model": tokenizer} | streams)


def pretrain(accumulate=1, **model):
    run = {"schedule": "image+text+pair", "accumulate": accumulate}
    # Three blocks, of which a loop takes the first two.
    return sized(tiny.pretrain_config(WORLD, **run), depth=3, **model)


def vqkd():
    config = tiny.vqkd_config(WORLD)
    model = {"drop_path": 0.2, "reseed_below": 0.5}
    return tiny.changed(config, task={"model": model, "image": ViewStreamConfig(batch_size=16)})


CASES = {
    "pretrain, 2 microbatches, (2, 2, 2)": (lambda: pretrain(2), (2, 2, 2)),
    "pretrain, bfloat16": (lambda: pretrain(matmul="bfloat16"), (1, 1, 1)),
    "pretrain, relative positions, sub-norms, scan, (1, 2, 1)": (
        lambda: pretrain(positions=Positions.RELATIVE, sub_norm=True, scan=True),
        (1, 2, 1),
    ),
    "vqkd, (2, 2, 1)": (vqkd, (2, 2, 1)),
}


def noise(tree):
    """Random values for frozen parameters, from their names alone."""

    def one(path, leaf):
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
        return jax.device_put(
            (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), leaf.sharding
        )

    return jax.tree_util.tree_map_with_path(one, tree)


def digest(tree):
    leaves = jax.tree.leaves(jax.device_get(tree))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()[:16]


def three_steps(config, shape):
    """Digests of what three steps leave, and of what they report."""
    config = dataclasses.replace(
        config, mesh=MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2])
    )
    step, make_state, _, frozen, batches = abstract_step(config, tiny.mesh_of(*shape))
    state, frozen = make_state(0), noise(frozen)
    rows = random_batches(config, batches, 0)
    for _ in range(3):
        # Two steps at once could wait for each other: a few cores simulate all devices.
        state, metrics = jax.block_until_ready(step(state, frozen, rows))
    losses = {name: value for name, value in metrics.items() if name.endswith("/loss")}
    parts = {"params": state.params, "moments": state.opt_state, "extra": state.model_state}
    return {name: digest(tree) for name, tree in parts.items()} | {"losses": digest(losses)}


def in_another_process(case):
    """The digests of a case, from XLA without its preset, which changes the order of sums."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if flag not in FAST_COMPILE]
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    done = processes.command("tests.training.test_golden", case, environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment():
    """What a digest depends on besides the program."""
    # Clouds give many processors one name, so their features count as well.
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    first = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines[::-1]}
    features = hashlib.sha256(first.get("flags", "").encode()).hexdigest()[:12]
    name = first.get("model name", "unknown processor")
    return f"jaxlib {importlib.metadata.version('jaxlib')}, {name}, features {features}"


# The two longest. Other tests compare meshes, microbatches and loops with their plain forms.
SLOW = [name for name in CASES if "microbatches" in name or "scan" in name]


@pytest.mark.parametrize(
    "case",
    [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in CASES],
)
def test_three_steps_are_bit_equal_to_the_recorded_ones(case):
    recorded = json.loads(RECORDED.read_text())
    here = recorded.setdefault(environment(), {})
    if os.environ.get("VLBEIT_RECORD"):
        here[case] = in_another_process(case)
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
        return
    if case not in here:
        pytest.skip(f"no digest was recorded with {environment()}")
    assert in_another_process(case) == here[case]


def test_lowered_text_tells_programs_apart():
    """``tests/lowered_steps.py`` compares it."""
    make, shape = CASES["vqkd, (2, 2, 1)"]
    other = tiny.changed(make(), task={"model": {"reseed_below": 0.4}})
    digests = [lowered_steps.program(config, shape) for config in (make(), make(), other)]
    assert digests[0] == digests[1] != digests[2]


if __name__ == "__main__":
    make, shape = CASES[sys.argv[1]]
    print(json.dumps(three_steps(make(), shape)))
