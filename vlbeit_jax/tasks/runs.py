"""Reads the configuration of an existing run."""

import json
import pathlib

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.training.saved_run import CONFIG_FILE
from vlbeit_jax.version import __version__


def read_config(folder: pathlib.Path, setting: str = "") -> Config:
    """Returns the configuration of a run.

    Args:
      folder: folder of the run.
      setting: name of the setting that gives the folder; messages name it unless it is empty.

    Raises:
      UsageError: the folder does not belong to a run, or its configuration cannot be read.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        named = f"{setting}={folder}" if setting else str(folder)
        why = f"{CONFIG_FILE}: {error}"
        if isinstance(error, FileNotFoundError):
            why = f"it has no {CONFIG_FILE}" if folder.is_dir() else "it does not exist"
        raise UsageError(
            f"{named} is not the folder of a run: {why}; give the --workdir of a run"
        ) from error
    try:
        return parse(values, to_train=False)
    except UsageError as error:
        raise UsageError(
            f"{folder / CONFIG_FILE}: {error}\nIf another version of vlbeit_jax wrote it, use that "
            f"one; this is {__version__}"
        ) from error


def read_network(folder: pathlib.Path, setting: str = "") -> tuple[Config, ModelConfig]:
    """Returns the configuration of a run, and the sizes of its Multiway Transformer.

    Args:
      folder: folder of the run.
      setting: as in ``read_config``.

    Raises:
      UsageError: see ``read_config``; or the run trains another network.
    """
    config = read_config(folder, setting)
    network = getattr(config.task, "model", None)
    if not isinstance(network, ModelConfig):
        named = f"{setting}={folder}" if setting else str(folder)
        raise UsageError(
            f"{named} is a run of task {config.task.kind!r}, which has no Multiway Transformer; "
            "give a run of pretraining or fine-tuning, or an import"
        )
    return config, network
