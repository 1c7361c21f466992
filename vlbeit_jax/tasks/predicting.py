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
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.training.mesh import on_mesh, padded_batch, put_batch, replicated

ROWS = 64  # At once on a device.
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
    """Returns the outputs of each record. The last batch is padded, so one program serves all.

    Args:
      outputs: hashable, because it is compiled once.
      params: on the devices.
      records: all of them, or the first ones.
      transform: makes an example of a record, without augmentation.
      batch_size: of training.
      place: devices, seed, this host's rows.
      batches: of training, after which to stop; 0: take all records.
    """
    size = rows_at_once(len(records), batch_size, place.mesh)
    most = batches * batch_size if batches else len(records)
    examples = EvaluationExamples(
        records, transform, size, seed=place.run.seed, max_batches=-(-most // size)
    )
    feed = pipeline.batches(examples, size, shard=place.shard, loader=place.loader)
    compiled, results = _compiled(outputs, place.mesh), []
    with closing(feed), on_mesh(place.mesh):
        for batch in counted(feed, "computing", "records", min(most, len(records)), size):
            results.append(jax.device_get(compiled(params, put_batch(batch, place.mesh))))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *results)
    real = joined[1]["weight"] > 0
    return Rows(*jax.tree.map(lambda leaf: leaf[real][:most], joined))


def rows_at_once(count: int, batch_size: int, mesh: Mesh) -> int:
    """Returns how many rows are computed together.

    They are no more than in training, because a run that was trained on many chips is evaluated on
    one; and no more than there are records, because the others would be padding.

    Args:
      count: of records.
      batch_size: of training.
      mesh: devices, whose number divides the result.
    """
    return padded_batch(min(count, batch_size, ROWS * padded_batch(1, mesh)), mesh)
