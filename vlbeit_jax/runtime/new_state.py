"""The state before the first step of a run."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.data.splits import SEEN_FOLDER, STARTED_FROM, read_seen, write_seen
from vlbeit_jax.places import appearing, remove_tree
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.training.saved_run import START_FILE
from vlbeit_jax.training.start_from import Start
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.trainable import part_like


def new_state(run: Run, state: TrainState, start_from: Start | None) -> TrainState:
    """Returns the state before the first step, and saves the task's inputs in the run."""
    run.hosts.on_primary(lambda: run.opened.save_assets(run.workdir))
    run.hosts.on_primary(lambda: run.data.save_seen(run.workdir))
    run.hosts.on_primary(lambda: _forget_start(run.workdir))
    if start_from is not None:
        params = run.hosts.all_or_none(lambda: start_from.load(state.params))
        run.hosts.on_primary(lambda: _save_start(run.workdir, start_from))
        # An average starts at the parameters that are averaged.
        ema = None if state.ema is None else jax.tree.map(jnp.copy, part_like(params, state.ema))
        state = dataclasses.replace(state, params=params, ema=ema)
    return run.opened.prepare_state(state, run.data, run.place)


def _forget_start(workdir: pathlib.Path) -> None:
    """Removes what an earlier try, which ended before its first checkpoint, has left."""
    (workdir / START_FILE).unlink(missing_ok=True)
    remove_tree(workdir / STARTED_FROM)


def _save_start(workdir: pathlib.Path, start: Start) -> None:
    """Writes where each parameter comes from, and the keys of what the start was trained on."""
    with appearing(workdir / START_FILE) as out:
        out.write(json.dumps(start.report(), indent=1) + "\n")
    seen = [
        read_seen(start.folder, name)
        for name in (SEEN_FOLDER, STARTED_FROM)
        if (start.folder / name).is_dir()
    ]
    if seen:
        both = {what: np.unique(np.concatenate([each[what] for each in seen])) for what in seen[0]}
        write_seen(workdir, both, STARTED_FROM)
