"""Answers of the pretraining heads, compiled: word pieces at masks, predicted visual tokens."""

import functools
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlbeit_jax.api.batches import in_batches
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.masking import blockwise_mask
from vlbeit_jax.data.text import TextTokenizer, row_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.shapes import Float, Int, Tree, UInt8
from vlbeit_jax.types import Modality, Special

MASK = "<mask>"
SMALLEST_BLOCK = 4  # Patches; that of configs/sample.py.


def masked_row(
    text: str, tokenizer: TextTokenizer, length: int
) -> tuple[Int[np.ndarray, " L"], list[int]]:
    """Returns the row of a text in which "<mask>" stands for a word piece, and their positions.

    Raises:
      UsageError: it is no string, there is no mask, or the text is too long.
    """
    if not isinstance(text, str):
        raise UsageError(f"text={text!r} is no text: give a string")
    parts = text.split(MASK)
    if len(parts) == 1:
        raise UsageError(f"text={text!r} has no {MASK}: write it where a word piece is missing")
    pieces: list[int] = list(tokenizer.encode(parts[0]))
    for part in parts[1:]:
        pieces += [Special.MASK, *tokenizer.encode(part)]
    if len(pieces) > length - 2:
        raise UsageError(
            f"text={text!r} has {len(pieces)} word pieces, but the model takes {length - 2}: "
            "shorten it"
        )
    row = row_of(pieces, length)
    return row, np.flatnonzero(row == Special.MASK).tolist()


def filled(
    network: VLBEiT,
    params: Tree,
    row: Int[np.ndarray, " L"],
    positions: list[int],
    image: UInt8[np.ndarray, "1 side side 3"] | None,
) -> Float[np.ndarray, "M V"]:
    """Returns the probability of each word piece at each masked position."""
    slots = np.zeros(len(row), np.int32)  # As many as any text may need, so one program serves all.
    slots[: len(positions)] = positions
    rows = {"text": row[None], "text_masked": slots[None]}
    if image is not None:
        rows["image"] = image
    logits = in_batches(functools.partial(_word_logits, network, params), rows)
    return np.asarray(jax.nn.softmax(logits[0, : len(positions)]))


@functools.partial(jax.jit, static_argnums=0)
def _word_logits(network: VLBEiT, params: Tree, rows: Mapping[str, jax.Array]) -> jax.Array:
    logits: Any = network.apply({"params": params}, Inputs(**rows), method="logits")
    return logits[Modality.LANGUAGE]


def hidden_patches(grid: int, hidden: float, seed: int) -> Int[np.ndarray, " M"]:
    """Returns which patches are hidden, in blocks as in pretraining.

    Raises:
      UsageError: ``hidden`` is no share above 0 and up to 1.
    """
    if not isinstance(hidden, numbers.Real) or not 0 < hidden <= 1:
        raise UsageError(
            f"hidden={hidden!r}: give the share of hidden patches, above 0 and up to 1"
        )
    count = max(1, round(hidden * grid**2))
    return blockwise_mask(Draws("api", seed), grid, count, min(SMALLEST_BLOCK, count))
