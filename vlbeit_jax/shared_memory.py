"""Command: how much shared memory the loader processes of a run need on each host."""

import os

from absl import flags

from vlbeit_jax import cli, main

OVERVIEW = """Prints the bytes that /dev/shm of each host needs for a run, computed from its configuration (docs/launch.md has the formula).
All other flags are those of vlbeit_jax.main, and are checked as there. Nothing that they name is opened.

  python -m vlbeit_jax.shared_memory --hosts=64 --chips=4 --config=configs/pretrain_base.py --workdir=RUN --config.data.workers=16"""

HOSTS = flags.DEFINE_integer("hosts", 1, "hosts with one process each", lower_bound=1)
CHIPS = flags.DEFINE_integer("chips", 1, "chips of a host", lower_bound=1)


def print_size() -> None:
    """Checks the flags as training does, then computes."""
    run = main.checked()
    os.environ["JAX_PLATFORMS"] = "cpu"  # Shapes alone are asked for.
    from vlbeit_jax.cost.shared_memory import shared_memory

    print(shared_memory(run.config, HOSTS.value, CHIPS.value))


if __name__ == "__main__":
    cli.run(print_size, OVERVIEW)
