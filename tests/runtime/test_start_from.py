"""``run.start_from``: another run's parameters, with nothing else of it."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.start import train
from vlbeit_jax.training.saved_run import restore

STILL = {"peak_lr": 1e-12, "end_lr": 0.0, "warmup_steps": 0, "weight_decay": 0.0}


@pytest.fixture
def config(world):
    """A run of one step that hardly moves, from the finished tokenizer, and with another seed."""
    config = tiny.vqkd_config(
        world, steps=1, checkpoint_every=1, seed=7, start_from=str(world.vqkd)
    )
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **STILL))


def test_a_run_starts_with_the_parameters_of_another_and_says_so(config, world, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(world.vqkd, start)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, start_from=str(start)))
    state = train(config, tmp_path / "run")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.params)
    before = restore(start, 3, {"params": shapes})["params"]
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8),
        jax.device_get(state.params),
        before,
    )
    count = len(jax.tree.leaves(before))
    said = f"starts from the parameters of {start}, step 3: {count} same, 0 adapted, 0 fresh, 0 dr"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(said) == 1

    # With a checkpoint of its own, the run no longer needs what it started from.
    shutil.rmtree(start)
    longer = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=2))
    assert int(train(longer, tmp_path / "run").step) == 2
    assert (tmp_path / "run" / "log.txt").read_text().count("starts from the parameters") == 1


def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(config, tmp_path):
    narrow = tiny.changed(config, task={"model": {"code_width": 9}})
    with pytest.raises(UsageError, match="holds another model") as raised:
        train(narrow, tmp_path / "run")
    assert "decoder_embed/patch/kernel: (8, 32) there, (9, 32) here" in str(raised.value)
    nowhere = dataclasses.replace(
        config, run=dataclasses.replace(config.run, start_from=str(tmp_path))
    )
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(nowhere, tmp_path / "run")
    assert not (tmp_path / "run").exists()
