"""Command: trains what a configuration file describes."""

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.config.common import ClusterConfig
from vlbeit_jax.config.describe import describe
from vlbeit_jax.config.parse import parse_section
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.runtime import signals
from vlbeit_jax.tasks import Config, parse

OVERVIEW = """Trains VL-BEiT, its visual tokenizer, or a fine-tuned model: what --config says.

  python -m vlbeit_jax.main --config=configs/sample.py --workdir=RUN
  python -m vlbeit_jax.main --config=configs/pretrain_base.py --workdir=RUN \\
      --config.run.steps=1000 --config.mesh.fsdp=4

Run the same command again to resume from the newest checkpoint in RUN. On several hosts, run the
same command on each of them. Hosts of TPU slices and of SLURM find each other automatically; under
Kubernetes without TPUs, add --config.cluster.kind=kubernetes. Elsewhere, give --coordinator,
--processes and --process. --help with --config=FILE lists the fields of this configuration with
their values."""

MAX_PORT = 65535
MAX_PROCESSES = 100_000
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run: checkpoints, logs, configuration", required=True
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0, if the environment does not give it"
)
PROCESSES = flags.DEFINE_integer(
    "processes", None, "number of processes; with --coordinator", 1, MAX_PROCESSES
)
PROCESS = flags.DEFINE_integer(
    "process", None, "index of this process, from 0; with --coordinator", lower_bound=0
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps",
    "",
    "FIRST:END: write a trace of these steps to WORKDIR/profile, for XProf or TensorBoard",
)
flags.mark_flag_as_required("config")
# HOST:PORT of process 0, number of processes and index of this one.
Address = tuple[str, int, int]


def fields() -> str:
    """Returns every field for ``--help``: of the configuration that is given, or of all kinds.

    Raises:
      UsageError: the configuration cannot be used.
    """
    if flags.FLAGS["config"].value is None:
        title = "Fields with their defaults; with --config=FILE, only those of its kind of task:"
        return f"{title}\n{describe(Config(), 'config')}"
    config = parse(cli.config_values(flags.FLAGS["config"]), to_train=False)
    title = "Fields with the values of this configuration; --config.x.y=z overrides one:"
    return f"{title}\n{describe(config, 'config', all_kinds=False)}"


def main() -> None:
    """Checks the flags, then trains. A signal ends it, after the step is saved if there is one."""
    with signals.ends_at_once():
        _main()


def _main() -> None:
    values, workdir = cli.config_values(CONFIG), place(WORKDIR.value, "--workdir")
    address, profile = check_flags()
    # JAX, which these import, takes seconds. A mistake in a flag is reported before.
    from vlbeit_jax.runtime import cluster
    from vlbeit_jax.runtime.fails_together import fails_together
    from vlbeit_jax.runtime.hosts import Hosts
    from vlbeit_jax.runtime.rendezvous import ProcessAddress

    try:
        how = parse_section(ClusterConfig(), values.get("cluster", {}), "config.cluster")
    except UsageError:
        read_config()  # Names the other mistakes of the configuration as well.
        raise
    cluster.join(how, ProcessAddress(*address) if address else None)
    with fails_together(), cli.explains_full_memory():
        # Settings may follow from the data. If a process read its data before it joins and did not
        # find them, the others would wait for it.
        config = Hosts(how.initialization_timeout, "configuration").all_or_none(read_config)
        from vlbeit_jax.runtime.compilation_cache import use_compilation_cache
        from vlbeit_jax.runtime.start import train

        use_compilation_cache(config.run.compilation_cache)
        train(config, workdir, profile)


def check_flags() -> tuple[Address | None, tuple[int, int] | None]:
    """Returns what the flags say besides the configuration.

    Returns:
      The address, None if the environment says it; and the first step of a trace with the step
      before which it ends.

    Raises:
      UsageError: one of the two cannot be used.
    """
    return _address(), _profile_steps()


def read_config() -> Config:
    """Returns the configuration that the flags say, with every number stated.

    Raises:
      UsageError: the configuration file is missing, or a field is out of bounds; or data from which
        a setting follows are missing.
    """
    from vlbeit_jax.tasks.new_run import parse_run

    return parse_run(cli.config_values(CONFIG), workdir=place(WORKDIR.value, "--workdir"))


def _address() -> Address | None:
    coordinator, processes, process = COORDINATOR.value, PROCESSES.value, PROCESS.value
    if not coordinator and processes is None and process is None:
        return None
    if not coordinator or processes is None or process is None:
        raise UsageError(
            "--coordinator, --processes and --process go together: give all three, on every process"
        )
    check_address("--coordinator", coordinator)
    if process >= processes:
        raise UsageError(
            f"--process={process} of --processes={processes}: must be in [0, {processes - 1}]"
        )
    return coordinator, processes, process


def check_address(flag: str, address: str) -> None:
    """Checks an address.

    Raises:
      UsageError: it is not HOST:PORT, with brackets around an IPv6 address.
    """
    host, _, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if in_brackets else host
    has_stray_letter = any(letter.isspace() or letter in "[]/" for letter in name)
    if not name or has_stray_letter or (":" in name and not in_brackets):
        raise UsageError(f"{flag}={address}: needs HOST:PORT, as in node1:1234 or [fe80::1]:1234")
    is_number = port.isascii() and port.isdecimal() and len(port) <= len(str(MAX_PORT))
    if not is_number or not 1 <= int(port) <= MAX_PORT:
        raise UsageError(f"{flag}={address}: the port must be in [1, {MAX_PORT}]")


def _profile_steps() -> tuple[int, int] | None:
    if not PROFILE_STEPS.value:
        return None
    first, _, end = PROFILE_STEPS.value.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise UsageError(
            f"--profile_steps={PROFILE_STEPS.value}: needs FIRST:END with FIRST < END, as in 10:15"
        )
    return int(first), int(end)


if __name__ == "__main__":
    cli.run(main, OVERVIEW, fields)
