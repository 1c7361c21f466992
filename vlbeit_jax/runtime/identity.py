"""What identifies a run to its hosts: compared between them at the start."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from vlbeit_jax.config.parse import flat, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks import Config


def host_facts(
    config: Config, fingerprints: Mapping[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
    """Returns what must be equal on all hosts, by a name for messages."""
    facts = {f"config.{name}": value for name, value in flat(to_dict(config)).items()}
    facts |= {f"fingerprint of {name}": value for name, value in fingerprints.items()}
    facts |= {f"version of {name}": value for name, value in versions().items()}
    return facts | {
        "devices, kind": jax.local_devices()[0].device_kind,
        "devices, on a host": jax.local_device_count(),
        "devices, in all": jax.device_count(),
        "--workdir": str(workdir),
    }


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
    kinds = saved.get("task.kind"), given.get("task.kind")
    if kinds[0] != kinds[1]:
        # Nearly every setting differs between two tasks; a list of them would hide the mistake.
        raise UsageError(
            f"{where} holds a run of task {kinds[0]!r}, but this configuration trains task "
            f"{kinds[1]!r}; choose another --workdir"
        )
    if different:
        raise UsageError(
            f"{where} holds another run, which cannot be resumed with these settings:\n  "
            + "\n  ".join(different)
            + "\nuse the same data, tokenizers and model, or choose another --workdir"
        )
