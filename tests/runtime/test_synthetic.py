"""Random batches for measurements: every task has some."""

import jax
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.schema import class_of
from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.runtime.synthetic import random_batches
from vlbeit_jax.tasks import TASKS, Config
from vlbeit_jax.tasks.abstract import row_shapes
from vlbeit_jax.training.mesh import batch_sharding

SMALL = {"classes": 3, "answer_count": 7}


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_has_random_batches(kind):
    task = class_of(TASKS, kind)()
    sections = [name for name, value in vars(task).items() if isinstance(value, StreamConfig)]
    changes = {name: {"batch_size": 4} for name in sections} | {"model": {"image_size": 160}}
    changes |= {name: value for name, value in SMALL.items() if hasattr(task, name)}
    task, sharding = tiny.changed(task, **changes), batch_sharding(tiny.mesh_of())
    shapes = {
        stream: {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            for name, leaf in row_shapes(task, stream).items()
        }
        for stream in task.streams()
    }
    found = random_batches(Config(task=task), shapes, 0)
    for stream, leaves in shapes.items():
        assert found[stream].keys() == leaves.keys()
        for name, leaf in leaves.items():
            value = found[stream][name]
            assert (value.shape, value.dtype) == (leaf.shape, leaf.dtype)
    assert all(np.asarray(rows["weight"]).all() for rows in found.values())
