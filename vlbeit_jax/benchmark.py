"""Command: how fast the train step of a configuration runs here."""

import datetime
import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import appearing, place, require_writable
from vlbeit_jax.redact import redacted
from vlbeit_jax.tasks.new_run import parse_run

if TYPE_CHECKING:
    from vlbeit_jax.tasks import Config

OVERVIEW = r"""Times the train step of a configuration on this machine's devices.

Prints the median and the spread as JSON, with the machine, versions, command and configuration.

  python -m vlbeit_jax.benchmark --config=configs/sample.py --config.task.schedule=image+text+pair
  python -m vlbeit_jax.benchmark --config=configs/pretrain_base.py \
      --config.task.image.batch_size=8 --config.task.text.batch_size=8 \
      --config.task.pair.batch_size=8
  python -m vlbeit_jax.benchmark --config=configs/sample.py \
      --config.task.schedule=pair --input=real \
      --config.task.text_tokenizer=sample_run/text_tokenizer ...

--json writes the result as an entry of docs/benchmarks. Read it before you publish it: it holds the
command with your paths. --notes adds what others should know.

Synthetic input is random and already on the devices; it needs no data and no tokenizer. With real
input, the command reads, decodes and transfers data as in training. The result says separately how
long a step waits for it."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
INPUT = flags.DEFINE_enum(
    "input", "synthetic", ["synthetic", "real"], "random arrays, or the configuration's data"
)
PEER = flags.DEFINE_string("peer", "", "moved to python -m tools.torch_peer")
STEPS = flags.DEFINE_integer("steps", 20, "timed steps", lower_bound=2)
WARMUP = flags.DEFINE_integer("warmup", 3, "untimed steps before the timed ones", lower_bound=1)
JSON = flags.DEFINE_string("json", "", "file that gets the result, an entry for docs/benchmarks")
NOTES = flags.DEFINE_string(
    "notes", "", "what a reader of the result should know, e.g. --notes='power limit 300 W'"
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Compiles, times, prints."""
    if PEER.value:
        raise UsageError(
            "--peer has moved: run python -m tools.torch_peer with the same flags, in a checkout"
        )
    config = parse_run(cli.config_values(CONFIG), to_train=INPUT.value == "real")
    if JSON.value:
        require_writable(place(JSON.value, "--json"))
    if "," in config.task.schedule:
        raise UsageError(
            f"task.schedule={config.task.schedule} has steps of several kinds; time one of them, "
            "e.g. --config.task.schedule=image+text+pair"
        )
    with cli.explains_full_memory():
        result = _origin(config) | measure(config, INPUT.value == "real", STEPS.value, WARMUP.value)
    text = json.dumps(result, indent=1)
    print(text)
    if JSON.value:
        with appearing(place(JSON.value)) as out:
            out.write(text + "\n")


def _origin(config: "Config") -> dict[str, Any]:
    """What makes the result an entry that others can repeat; docs/benchmarks describes it."""
    from vlbeit_jax.runtime import machine
    from vlbeit_jax.tasks.differences import differences

    origin = {
        "format": 1,
        "source": "benchmark",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "notes": NOTES.value,
        "command": f"python -m vlbeit_jax.benchmark {shlex.join(cli.typed_arguments())}",
        "config": cli.typed_config() or config_flags.get_config_filename(flags.FLAGS["config"]),
        "changes": {each.path: each.value for each in differences(config)},
        "machine": machine.host() | machine.card(),
    }
    return redacted(origin)


def measure(config: "Config", real: bool, steps: int, warmup: int) -> dict[str, Any]:
    """Returns the seconds of single steps, each waited for, and what follows from their median."""
    import jax

    from vlbeit_jax.runtime import machine
    from vlbeit_jax.runtime.speed import circumstances, peak_here, peak_memory, rates, spread
    from vlbeit_jax.runtime.synthetic import random_batches, random_state, random_weights
    from vlbeit_jax.tasks.abstract import abstract_step
    from vlbeit_jax.training.mesh import make_mesh

    mesh = make_mesh(config.mesh)
    step, _, start, frozen, shapes = abstract_step(config, mesh)
    feed, close = _real(config, mesh) if real else (None, lambda: None)
    state, frozen, batches = (
        random_state(start, 0),
        random_weights(frozen, 0),
        random_batches(config, shapes, 0),
    )
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
    peak, times = peak_here(), spread(seconds)
    return circumstances(config, peak) | {
        "mesh": dict(mesh.shape),
        "input": "real" if real else "synthetic",
        "compile_seconds": round(step.total_compile_seconds, 2),
        "steps": steps,
        "step_seconds": times,
        "data_wait": sum(waits) / sum(seconds),
        **rates(config, times["median"], peak),
        "peak_memory_bytes": peak_memory() or machine.peak_resident_bytes(),
        "peak_memory_source": (
            "in use on the first device" if peak_memory() else "this process, in RAM"
        ),
    }


def _real(config: "Config", mesh: Any) -> tuple[Iterator[dict[str, Any]], Callable[[], None]]:
    """Returns an endless iterator over placed batches, and what closes it."""
    from vlbeit_jax.data import pipeline
    from vlbeit_jax.training.mesh import host_shard, put_batch

    task = config.task.resolve()
    data, shard = task.open().training_data(config.run), host_shard(mesh)
    feeds = {
        name: pipeline.batches(data.examples(name), stream.batch_size, 0, shard, config.loader)
        for name, stream in task.streams().items()
    }

    def feed() -> Iterator[dict[str, Any]]:
        while True:
            yield {name: put_batch(next(batches), mesh) for name, batches in feeds.items()}

    def close() -> None:
        for batches in feeds.values():
            batches.close()

    return feed(), close


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
