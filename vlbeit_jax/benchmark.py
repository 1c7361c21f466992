"""Command: how fast the train step of a configuration runs here."""

import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.config_parse import parse
from vlbeit_jax.errors import UsageError

if TYPE_CHECKING:
    import jax

    from vlbeit_jax.config import Config

OVERVIEW = r"""Times the train step of a configuration on this machine's devices, and prints median and spread as JSON.

  python -m vlbeit_jax.benchmark --config=configs/sample.py --config.run.schedule=image+text+pair
  python -m vlbeit_jax.benchmark --config=configs/pretrain_base.py --config.data.image.batch_size=8 --config.data.text.batch_size=8 \
      --config.data.pair.batch_size=8
  python -m vlbeit_jax.benchmark --config=configs/sample.py --config.run.schedule=pair --input=real \
      --config.data.text_tokenizer=sample_run/text_tokenizer ...
  python -m vlbeit_jax.benchmark --config=configs/sample.py --config.run.schedule=image+text+pair --peer=torch

Synthetic input is random and lies on the devices already; no data and no tokenizer are needed. Real input is read, decoded and sent
as in training, and the time that a step waits for it is a figure of its own.

With --peer=torch the same step is taken in PyTorch (vlbeit_torch.py) in turn with JAX's, from the same weights on the same batches. Both
are printed with the ratio of each pair. The command ends with exit code 1 if losses and gradient norm of the first step differ."""

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True)
INPUT = flags.DEFINE_enum("input", "synthetic", ["synthetic", "real"], "random arrays, or what the configuration names")
PEER = flags.DEFINE_enum("peer", "", ["", "torch"], "a program that takes the same steps and is timed beside")
STEPS = flags.DEFINE_integer("steps", 20, "steps that are timed", lower_bound=2)
WARMUP = flags.DEFINE_integer("warmup", 3, "steps before them", lower_bound=1)
JSON = flags.DEFINE_string("json", "", "file for the result")
flags.mark_flag_as_required("config")


def main() -> None:
    """Compiles, times, prints."""
    config = parse(CONFIG.value.to_dict(), to_train=INPUT.value == "real")
    if JSON.value:
        cli.require_writable(pathlib.Path(JSON.value))
    if "," in config.run.schedule:
        raise UsageError(
            f"run.schedule={config.run.schedule} has steps of several kinds; time one, e.g. --config.run.schedule=image+text+pair"
        )
    if PEER.value and INPUT.value == "real":
        raise UsageError(f"--peer={PEER.value} needs --input=synthetic: both sides take the same batch in every step")
    found = (measure_beside_torch if PEER.value else measure)(config, INPUT.value == "real", STEPS.value, WARMUP.value)
    text = json.dumps(found, indent=1)
    print(text)
    if JSON.value:
        pathlib.Path(JSON.value).write_text(text + "\n")
    if not found.get("agrees", True):
        sys.exit(f"error: the first step is not the same on both sides within {found['limit']}: {found['first_step']}")


def measure(config: "Config", real: bool, steps: int, warmup: int) -> dict[str, Any]:
    """Seconds of single steps, each waited for, and what follows from their median."""
    import jax

    from vlbeit_jax.cost.flops import step_flops
    from vlbeit_jax.runtime.throughput import peak_of_all_devices
    from vlbeit_jax.tasks.abstract import abstract_step
    from vlbeit_jax.training.sharding import make_mesh

    mesh = make_mesh(config.mesh)
    step, make_state, _, frozen, shapes = abstract_step(config, mesh)
    feed, close = _real(config, mesh) if real else (None, lambda: None)
    state, frozen, batches = make_state(config.run.seed), _random(frozen, config), _random(shapes, config)
    seconds, waits = [], []
    for number in range(warmup + steps):
        began = time.perf_counter()
        batches = next(feed) if feed else batches
        waited = time.perf_counter() - began
        state, metrics = step(state, frozen, batches)
        jax.block_until_ready((state, metrics))
        if number >= warmup:
            seconds.append(time.perf_counter() - began)
            waits.append(waited)
    close()
    flops, median, peak = step_flops(config), statistics.median(seconds), peak_of_all_devices()
    first = jax.devices()[0]
    return {
        "device": first.device_kind,
        "devices": jax.device_count(),
        "mesh": dict(mesh.shape),
        "input": "real" if real else "synthetic",
        "compile_seconds": round(step.total_compile_seconds, 2),
        "steps": steps,
        "step_seconds": {"median": median, "min": min(seconds), "max": max(seconds), "quartiles": statistics.quantiles(seconds, n=4)},
        "data_wait": sum(waits) / sum(seconds),
        "samples_per_second": flops.samples / median,
        "tokens_per_second": flops.tokens / median,
        "model_flops": flops.model,
        "frozen_flops": flops.frozen,
        "model_flops_per_second": flops.model / median,
        "peak_flops_per_second": peak,
        "mfu": flops.model / median / peak,
        "peak_memory_bytes": (first.memory_stats() or {}).get("peak_bytes_in_use"),
    }


def measure_beside_torch(config: "Config", real: bool, steps: int, warmup: int) -> dict[str, Any]:
    """The same step in JAX and in PyTorch, in turn."""
    from vlbeit_jax.convert.peer_benchmark import check_comparable, compare
    from vlbeit_jax.tasks.abstract import abstract_step
    from vlbeit_jax.training.sharding import make_mesh

    assert not real
    check_comparable(config)
    step, make_state, _, frozen, shapes = abstract_step(config, make_mesh(config.mesh))
    return compare(config, step, make_state(config.run.seed), _random(frozen, config), _random(shapes, config), steps, warmup)


def _real(config: "Config", mesh: Any) -> tuple[Iterator[dict[str, Any]], Callable[[], None]]:
    from vlbeit_jax.tasks import TASKS
    from vlbeit_jax.training.schedule import Schedule
    from vlbeit_jax.training.sharding import put_batch, share_of

    task = TASKS[config.task](config)
    streams = {stream: task.training_batches(stream, 0, share_of(mesh)) for stream in Schedule.parse(config.run.schedule).streams}

    def feed() -> Iterator[dict[str, Any]]:
        while True:
            yield {stream: put_batch(next(batches), mesh) for stream, batches in streams.items()}

    def close() -> None:
        for batches in streams.values():
            batches.close()

    return feed(), close


def _random(shapes: Any, config: "Config") -> Any:
    """Arrays of the given shapes: small numbers, and indices that every table has."""
    import jax
    import jax.numpy as jnp

    limits = {"image": 256, "image_masked": config.model.patches, "image_targets": config.model.codes}
    limits |= {"text": config.model.vocabulary, "text_targets": config.model.vocabulary}

    def make(path: Any, leaf: "jax.ShapeDtypeStruct") -> "jax.Array":
        name, key = path[-1].key, jax.random.key(len(jax.tree_util.keystr(path)))
        if name in ("weight", "text_weights", "scale"):
            return jnp.ones(leaf.shape, leaf.dtype, device=leaf.sharding)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            limit = limits.get(name, leaf.shape[-1])  # Positions in a text, of which there are more than masked ones.
            return jax.device_put(jax.random.randint(key, leaf.shape, 0, int(limit or 1)).astype(leaf.dtype), leaf.sharding)
        spread = leaf.shape[0] ** -0.5 if leaf.ndim > 1 else 0.02  # Kernels keep activations in range, so that visual tokens differ.
        return jax.device_put(spread * jax.random.normal(key, leaf.shape, leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(make, shapes)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
