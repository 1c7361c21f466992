"""Command: how much shared memory the loader processes of a run need on each host."""

from absl import flags

from vlbeit_jax import cli, main

OVERVIEW = """Prints how many bytes of /dev/shm a run needs on each host (docs/launch.md).

  python -m vlbeit_jax.shared_memory --hosts=64 --chips=4 \\
      --config=configs/pretrain_base.py --workdir=RUN --config.loader.workers=16

All other flags are those of vlbeit_jax.main, with the same checks. The command does not open the
data sets and tokenizers that they name."""

HOSTS = flags.DEFINE_integer("hosts", 1, "number of hosts, with one process each", lower_bound=1)
CHIPS = flags.DEFINE_integer("chips", 1, "chips per host", lower_bound=1)


def print_size() -> None:
    """Checks the flags as training does, then prints the size."""
    main.check_flags()
    config = main.read_config()
    import jax

    from vlbeit_jax.runtime.shared_memory import shared_memory

    jax.config.update("jax_platforms", "cpu")  # Only shapes are needed.
    print(shared_memory(config, HOSTS.value, CHIPS.value))


if __name__ == "__main__":
    cli.run(print_size, OVERVIEW)
