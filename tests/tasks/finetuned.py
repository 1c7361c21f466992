"""Fine-tuned runs, opened and evaluated as the commands do; and runs that are stopped."""

import contextlib
import functools

import jax

from tests.kept_steps import kept_steps
from tests.test_toy_task import stops_after
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh


def opened(folder, weights="raw"):
    config = read_config(folder)
    return FineTunedRun.open(folder, config, config.task.open(folder), weights)


def evaluated(folder, sets, split, weights="raw"):
    return opened(folder, weights).evaluate([str(sets)], split, make_mesh(MeshConfig()))


def in_one_go_and_in_two(settings, folder):
    """The states after four steps, and after two, a stop and two more; of a run of four or more."""
    longer = settings.run.steps > 4
    at_four = functools.partial(stops_after, 4) if longer else contextlib.nullcontext
    with kept_steps():
        with at_four():
            whole = jax.device_get(train(settings, folder / "whole"))
        with stops_after(2):
            assert int(train(settings, folder / "parts").step) == 2
        with at_four():
            again = jax.device_get(train(settings, folder / "parts"))
    assert int(whole.step) == int(again.step) == 4
    return whole, again
