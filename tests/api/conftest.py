"""A pretrained run with random parameters, opened."""

import pytest

import vlbeit_jax
from tests import tiny
from tests.convert.conftest import write_random_run


@pytest.fixture(scope="session")
def random_model(world, tmp_path_factory):
    """Read only. Nothing is kept of what it compiles."""
    folder = write_random_run(
        tmp_path_factory.mktemp("api") / "run", tiny.pretrain_config(world, steps=1), world
    )
    return vlbeit_jax.load(folder, compilation_cache="")
