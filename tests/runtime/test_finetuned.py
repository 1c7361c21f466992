"""A fine-tuned run, opened."""

import pathlib
import types
from typing import Any

import jax.numpy as jnp

from tests import tiny
from vlbeit_jax.runtime.finetuned import FineTunedRun


def test_parameters_are_copied_to_a_mesh_once():
    """However often the run predicts: at base size each copy is 350 MB, down and up again."""
    config: Any = types.SimpleNamespace(run=None, loader=None)
    opened: Any = types.SimpleNamespace(predict=lambda params, *_: params["kernel"])
    run = FineTunedRun(pathlib.Path(), config, opened, {"kernel": jnp.ones(4)}, 1, "raw")
    one, other = tiny.mesh_of(), tiny.mesh_of(data=2)
    first: Any = run.predict([], 1, one)
    assert run.predict([], 1, one) is first and run.predict([], 1, tiny.mesh_of()) is first
    moved: Any = run.predict([], 1, other)
    assert moved is not first and len(moved.sharding.device_set) == 2
