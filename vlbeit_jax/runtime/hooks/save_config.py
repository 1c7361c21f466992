"""Keeps ``config.json`` true."""

import pathlib

from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.state import TrainState


class SaveConfig(Hook):
    """Writes ``config.json`` after the first step, so that it describes a step that was taken."""

    def __init__(self, folder: pathlib.Path, config: Config):
        """Takes the folder and the configuration of a run."""
        self._folder, self._config = folder, config
        self._written = False

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Writes the file once."""
        if not self._written:
            write_config(self._folder, self._config)
            self._written = True
