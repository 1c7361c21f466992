"""Command: trains what a configuration file says."""

import pathlib
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import describe, parse
from vlbeit_jax.errors import UsageError

OVERVIEW = f"""Trains VL-BEiT or its visual tokenizer.

  python -m vlbeit_jax.main --config=configs/sample.py --workdir=RUN
  python -m vlbeit_jax.main --config=configs/pretrain_base.py --workdir=RUN --config.run.steps=1000 --config.mesh.fsdp=4

The same command again goes on from the newest checkpoint in RUN. On several hosts the same command runs on each: TPU VMs, SLURM and
Kubernetes say themselves who the others are; elsewhere --coordinator, --processes and --process do. Every field can be overridden:
{describe()}"""

PORTS = 65535  # The largest.
MOST_PROCESSES = 100_000
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run: checkpoints, logs, configuration", required=True
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0, where the environment does not say it"
)
PROCESSES = flags.DEFINE_integer(
    "processes", None, "how many processes there are; with --coordinator", 1, MOST_PROCESSES
)
PROCESS = flags.DEFINE_integer(
    "process", None, "which one this is, from 0; with --coordinator", lower_bound=0
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps",
    "",
    "FIRST:END, a trace of these steps in WORKDIR/profile, for XProf or TensorBoard",
)
flags.mark_flag_as_required("config")


class Checked(NamedTuple):
    """What the flags say.

    Attributes:
      config: of the run.
      place: address of process 0, count and number of this process; None: the environment says it.
      profile: first step of a trace, and the step before which it ends.
    """

    config: Config
    place: tuple[str, int, int] | None
    profile: tuple[int, int] | None


def main() -> None:
    """Checks the configuration, then trains."""
    run = checked()
    from vlbeit_jax.runtime import (
        cluster,
    )  # After the checks: a mistake in the configuration is answered at once.
    from vlbeit_jax.runtime.compilation_cache import use_compilation_cache
    from vlbeit_jax.runtime.loop import train
    from vlbeit_jax.runtime.roll_call import Place

    cluster.join(run.config.cluster, Place(*run.place) if run.place else None)
    use_compilation_cache(run.config.run.compilation_cache)
    with cluster.fails_together():
        train(run.config, pathlib.Path(WORKDIR.value), run.profile)


def checked() -> Checked:
    """The flags as values.

    Raises:
      UsageError: a file that is missing, a field or an address out of bounds.
    """
    try:
        values = (
            CONFIG.value.to_dict()
        )  # Of a file that could not be loaded, every attribute is an error.
    except OSError as error:
        raise UsageError(str(error)) from error
    place, profile = _place(), _profile_steps()
    return Checked(parse(values), place, profile)


def _place() -> tuple[str, int, int] | None:
    address, count, which = COORDINATOR.value, PROCESSES.value, PROCESS.value
    if not address and count is None and which is None:
        return None
    if not address or count is None or which is None:
        raise UsageError(
            "--coordinator, --processes and --process go together: give all three, on every process"
        )
    check_address("--coordinator", address)
    if which >= count:
        raise UsageError(f"--process={which} of --processes={count}: must be in [0, {count - 1}]")
    return address, count, which


def check_address(flag: str, address: str) -> None:
    """Raises a ``UsageError`` unless the address is HOST:PORT, with brackets around an IPv6 address."""
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (
        not bare
        or (bare == host and ":" in host)
        or any(letter.isspace() or letter in "[]/" for letter in bare)
    ):
        raise UsageError(
            f"{flag}={address}: needed is HOST:PORT, as in node1:1234 or [fe80::1]:1234"
        )
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= PORTS):
        raise UsageError(f"{flag}={address}: the port must be in [1, {PORTS}]")


def _profile_steps() -> tuple[int, int] | None:
    if not PROFILE_STEPS.value:
        return None
    first, _, end = PROFILE_STEPS.value.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise UsageError(
            f"--profile_steps={PROFILE_STEPS.value}: needed is FIRST:END with FIRST < END, as in 10:15"
        )
    return int(first), int(end)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
