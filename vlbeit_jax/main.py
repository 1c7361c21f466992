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

The same command again goes on from the newest checkpoint in RUN. Every field can be overridden:
{describe()}"""

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, logs, configuration", required=True)
flags.mark_flag_as_required("config")


def main() -> None:
    """Checks the configuration, then trains."""
    try:
        values = CONFIG.value.to_dict()  # Of a file that could not be loaded, every attribute is an error.
    except OSError as error:
        raise UsageError(str(error)) from error
    config = parse(values)
    from vlbeit_jax.runtime.loop import train  # After the checks: a mistake in the configuration is answered at once.

    train(config, pathlib.Path(WORKDIR.value))


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
