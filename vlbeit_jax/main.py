"""Command: trains what a configuration file says."""

import pathlib

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.config_parse import describe, parse
from vlbeit_jax.errors import UsageError

OVERVIEW = f"""Trains VL-BEiT or its visual tokenizer.

  python -m vlbeit_jax.main --config=configs/sample.py --workdir=RUN
  python -m vlbeit_jax.main --config=configs/pretrain_base.py --workdir=RUN --config.run.steps=1000 --config.mesh.fsdp=4

The same command again goes on from the newest checkpoint in RUN. On several hosts the same command runs on each: TPU VMs, SLURM and
Kubernetes say themselves who the others are; elsewhere --coordinator, --processes and --process do. Every field can be overridden:
{describe()}"""

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, logs, configuration", required=True)
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where the environment does not say it")
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are; with --coordinator", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "which one this is, from 0; with --coordinator", lower_bound=0)
PROFILE_STEPS = flags.DEFINE_string("profile_steps", "", "FIRST:END, a trace of these steps in WORKDIR/profile, for XProf or TensorBoard")
flags.mark_flag_as_required("config")


def main() -> None:
    """Checks the configuration, then trains."""
    try:
        values = CONFIG.value.to_dict()  # Of a file that could not be loaded, every attribute is an error.
    except OSError as error:
        raise UsageError(str(error)) from error
    place, profile, config = _place(), _profile_steps(), parse(values)
    from vlbeit_jax.runtime import cluster  # After the checks: a mistake in the configuration is answered at once.
    from vlbeit_jax.runtime.compilation_cache import use_compilation_cache
    from vlbeit_jax.runtime.loop import train
    from vlbeit_jax.runtime.roll_call import Place

    cluster.join(config.cluster, Place(*place) if place else None)
    use_compilation_cache(config.run.compilation_cache)
    with cluster.fails_together():
        train(config, pathlib.Path(WORKDIR.value), profile)


def _place() -> tuple[str, int, int] | None:
    address, count, which = COORDINATOR.value, PROCESSES.value, PROCESS.value
    if not address and count is None and which is None:
        return None
    if not address or count is None or which is None:
        raise UsageError("--coordinator, --processes and --process go together: give all three, on every process")
    if which >= count or ":" not in address:
        raise UsageError(
            f"--coordinator={address} --processes={count} --process={which}: needed are HOST:PORT and a process below processes"
        )
    return address, count, which


def _profile_steps() -> tuple[int, int] | None:
    if not PROFILE_STEPS.value:
        return None
    first, _, end = PROFILE_STEPS.value.partition(":")
    if not (first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise UsageError(f"--profile_steps={PROFILE_STEPS.value}: needed is FIRST:END with FIRST < END, as in 10:15")
    return int(first), int(end)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
