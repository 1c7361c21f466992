"""Scores of masked prediction over batches, gathered from all devices."""

import functools
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.mesh import on_mesh, put_batch, replicated


@functools.cache
def _compiled(objective: MaskedPrediction, mesh: Mesh) -> Callable[..., Any]:
    def scored(params: Tree, frozen: Tree, batch: dict[str, jax.Array]) -> tuple[Any, ...]:
        return objective.score(params, frozen, batch), batch["uid"], batch["weight"]

    return jax.jit(scored, out_shardings=replicated(mesh))


def score(
    objective: MaskedPrediction,
    params: Tree,
    frozen: Tree,
    batches: Batches,
    mesh: Mesh,
    *,
    what: str,
    total: int,
    each: int,
) -> dict[str, Scores]:
    """Returns, per term, the totals of each example; padding rows, of weight 0, are left out.

    Args:
      objective: of the stream.
      params: on the devices.
      frozen: of the visual tokenizer, on the devices.
      batches: of the examples; closed here.
      mesh: devices.
      what: is done, for the progress of a command.
      total: number of examples without padding.
      each: rows of a batch.
    """
    compiled = _compiled(objective, mesh)
    seen = []
    with closing(batches), on_mesh(mesh):
        for batch in counted(batches, what, "examples", total, each):
            seen.append(jax.device_get(compiled(params, frozen, put_batch(batch, mesh))))
    uid = np.concatenate([uid for _, uid, _ in seen])
    real = np.concatenate([weight for *_, weight in seen]) > 0

    def together(name: str, kind: str) -> np.ndarray:
        return np.concatenate([terms[name][kind] for terms, *_ in seen])[real]

    return {
        name: Scores(
            uid=uid[real],
            correct=together(name, "correct"),
            loss=together(name, "loss"),
            weight=together(name, "weight"),
            targets=np.sum([terms[name]["targets"] for terms, *_ in seen], axis=0),
        )
        for name in seen[0][0]
    }
