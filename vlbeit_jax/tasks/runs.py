"""Reads the configuration of a run that exists."""

import json
import pathlib

from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.training.saved_run import CONFIG_FILE


def read_config(folder: pathlib.Path, setting: str = "") -> Config:
    """Returns the configuration of a run.

    Args:
      folder: of the run.
      setting: that names the folder, for messages.

    Raises:
      UsageError: the folder does not belong to a run, or its configuration cannot be read.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        named = f"{setting}={folder}" if setting else str(folder)
        raise UsageError(
            f"{named} is not the folder of a run: {CONFIG_FILE}: {error}; "
            "give the --workdir of a run"
        ) from error
    try:
        return parse(values, to_train=False)
    except UsageError as error:
        raise UsageError(f"{folder / CONFIG_FILE}: {error}") from error
