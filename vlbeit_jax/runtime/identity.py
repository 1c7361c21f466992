"""What identifies a run: compared between hosts at the start, and with the checkpoint on resume."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import flat, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.training.schedule import Schedule

# Fields of a model's section that do not change what is trained, so a resumed run may change them.
# (For a teacher the weights are compared, not the folder that holds them.)
MAY_CHANGE = {
    "attention",
    "remat",
    "scan",
    "teacher_weights",
    "collapse_below",
    "kmeans_batches",
    "kmeans_iterations",
    "reseed_below",
}


def host_facts(config: Config, task: Task, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what must be equal on all hosts, by a name for messages."""
    facts = {f"config.{name}": value for name, value in flat(to_dict(config)).items()}
    facts |= {f"fingerprint of {name}": value for name, value in task.fingerprints.items()}
    facts |= {f"version of {name}": value for name, value in versions().items()}
    return facts | {
        "devices, kind": jax.local_devices()[0].device_kind,
        "devices, on a host": jax.local_device_count(),
        "devices, in all": jax.device_count(),
        "--workdir": str(workdir),
    }


def must_match(config: Config, task: Task) -> dict[str, Any]:
    """Returns what must equal the checkpoint's on resume, by a name for messages."""
    shape = "model" if config.task == "pretrain" else "visual_tokenizer"
    found: dict[str, Any] = {
        "task": config.task,
        "run.seed": config.run.seed,
        "run.schedule": config.run.schedule,
    }
    for name, value in to_dict(getattr(config, shape)).items():
        if name not in MAY_CHANGE:
            found[f"{shape}.{name}"] = value
    for stream in Schedule.parse(config.run.schedule).streams:
        data = getattr(config.data, stream)
        found[f"data.{stream}.batch_size"] = data.batch_size
        found[f"data.{stream}.weights"] = list(data.weights)  # As JSON reads it back.
    return found | dict(task.fingerprints)


def check_same(saved: Mapping[str, Any], given: Mapping[str, Any], where: object) -> None:
    """Compares what identifies a run in its checkpoint with what was given.

    Raises:
      UsageError: lists every name on which they differ, with both values.
    """
    different = [
        f"{name}: the checkpoint has {saved.get(name)!r}, this run has {given.get(name)!r}"
        for name in sorted({*saved, *given})
        if saved.get(name) != given.get(name)
    ]
    if different:
        raise UsageError(
            f"{where} holds another run, which cannot be resumed with these settings:\n  "
            + "\n  ".join(different)
            + "\nuse the same data, tokenizers and model, or choose another --workdir"
        )
