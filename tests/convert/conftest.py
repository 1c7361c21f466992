"""Runs with random parameters, written as training would write them."""

import importlib.util
import shutil

import pytest

from tests import tiny
from tests.convert.random_runs import random_tree
from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.formats import torch_module
from vlbeit_jax.convert.source import as_tree, model_shapes, read_run
from vlbeit_jax.folders import SAMPLE_FOLDER
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.types import Positions

# For tests that import PyTorch in their bodies, or that run a command which does.
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def write_random_run(folder, config: Config, world=None, zero=()):
    """A finished run with random biases and scales, and tokenizers if a world is given.

    ``zero`` names parameters that are zero instead.
    """
    folder.mkdir(parents=True)
    write_config(folder, config)
    checkpointer = Checkpointer(folder / "checkpoints")
    params = random_tree(model_shapes(config.task.model))
    params |= {name: 0 * params[name] for name in zero}
    checkpointer.save(
        config.run.steps, {"params": as_tree(params)}, {"trained_on": [], "step": config.run.steps}
    )
    checkpointer.close()
    if world is not None:
        shutil.copytree(world.text_tokenizer, folder / "text_tokenizer")
        shutil.copytree(world.vqkd, folder / "visual_tokenizer")
    return folder


def small_run(folder, **model):
    """Reads a run without data; ``model`` changes fields of its model."""
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "depth": 2,
        "heads": 4,
        "ffn_width": 48,
        "text_positions": 16,
        "vocabulary": 300,
        "codes": 40,
    }
    return read_run(
        write_random_run(
            folder,
            Config(task=Pretrain(model=ModelConfig(**sizes | model)), run=RunConfig(steps=1)),
        )
    )


@pytest.fixture
def pairs_only(monkeypatch):
    """Lets checks compare on pairs alone, which go through every part of the network.

    Controls use it: one batch tells another network apart, and each batch costs a compilation.
    """
    all_batches = verify.random_batches
    monkeypatch.setattr(
        verify, "random_batches", lambda config: {"pair": all_batches(config)["pair"]}
    )


@pytest.fixture(scope="session", params=list(Positions), ids=str)
def random_run(request, world, tmp_path_factory):
    config = tiny.pretrain_config(world)
    config = tiny.changed(config, task={"model": {"positions": request.param}})
    return write_random_run(tmp_path_factory.mktemp("convert") / str(request.param), config, world)


# For what does not depend on positions: one of both runs.
one_scheme = pytest.mark.parametrize(
    "random_run",
    [Positions.RELATIVE, pytest.param(Positions.ABSOLUTE, marks=pytest.mark.slow)],
    ids=str,
    indirect=True,
)


@pytest.fixture(scope="session")
def sample_export(tmp_path_factory):
    """The packed sample, exported to PyTorch; read only."""
    out = tmp_path_factory.mktemp("sample_export")
    torch_module.write(read_run(SAMPLE_FOLDER), out)
    write_manifest(out)
    return out
