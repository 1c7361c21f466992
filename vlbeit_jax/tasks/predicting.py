"""Outputs of a network for records, one after the other, gathered from all devices."""

import functools
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.models.params import Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.training.mesh import on_mesh, padded_batch, put_batch, replicated

# From parameters and a batch to a tree of arrays with one entry per row.
Outputs = Callable[[Tree, dict[str, jax.Array]], Tree]


class Rows(NamedTuple):
    """What was computed for some records, in their order.

    Attributes:
      outputs: a tree of arrays with one entry per record.
      batch: the arrays of the examples that the outputs belong to, except images and texts.
    """

    outputs: Any
    batch: dict[str, np.ndarray]


@functools.cache
def _compiled(outputs: Outputs, mesh: Mesh) -> Callable[..., Any]:
    def computed(params: Tree, batch: dict[str, jax.Array]) -> Any:
        small = {name: leaf for name, leaf in batch.items() if leaf.ndim == 1}
        return outputs(params, batch), small

    return jax.jit(computed, out_shardings=replicated(mesh))


def outputs_of(
    outputs: Outputs,
    params: Tree,
    records: Records,
    transform: Transform,
    batch_size: int,
    place: Place,
    *,
    batches: int = 0,
) -> Rows:
    """Returns the outputs of each record. All batches have one shape; the last one is padded.

    Args:
      outputs: hashable, because it is compiled once.
      params: on the devices.
      records: all of them, or the first ones.
      transform: makes an example of a record, without augmentation.
      batch_size: rounded up to a multiple of the mesh.
      place: devices, seed, this host's rows.
      batches: stop after so many; 0: take all.
    """
    size = padded_batch(batch_size, place.mesh)
    examples = EvaluationExamples(
        records, transform, size, seed=place.run.seed, max_batches=batches
    )
    feed = pipeline.batches(examples, size, shard=place.shard, loader=place.loader)
    compiled, found = _compiled(outputs, place.mesh), []
    with closing(feed), on_mesh(place.mesh):
        for batch in feed:
            found.append(jax.device_get(compiled(params, put_batch(batch, place.mesh))))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    real = joined[1]["weight"] > 0
    return Rows(*jax.tree.map(lambda leaf: leaf[real], joined))
