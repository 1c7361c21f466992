"""The model's answers on a few held-back examples.

Images are decoded from predicted visual tokens; masked word pieces have the likeliest guesses.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.data import pipeline
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.rematch import Rematched, wrong_partners
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.objectives.masked_prediction import model_inputs
from vlbeit_jax.ops.gather import is_at_positions
from vlbeit_jax.runtime.pretrained import OpenedRun
from vlbeit_jax.shapes import Float, Int, UInt8
from vlbeit_jax.tasks.visual_tokens import draws_pictures, pictures_of
from vlbeit_jax.types import Modality, Special

GUESSES = 5
MASK_GREY = 127


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Held-back images, all ``[n, height, width, 3]``.

    Attributes:
      original: as the model sees them before masking.
      masked: with masked patches in grey.
      tokens: decoded from the true visual tokens, the best that can be reached.
      predicted: decoded from the tokens of the visible patches and the predicted tokens of the
        masked patches.
      accuracy: share of the masked patches that were predicted rightly, per image.
    """

    original: UInt8[np.ndarray, "n height width 3"]
    masked: UInt8[np.ndarray, "n height width 3"]
    tokens: UInt8[np.ndarray, "n height width 3"]
    predicted: UInt8[np.ndarray, "n height width 3"]
    accuracy: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Guess:
    """One masked word piece, and the likeliest pieces with the right and with a wrong image."""

    position: int
    truth: str
    right: list[tuple[str, float]]
    wrong: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Caption:
    """A pair with some pieces masked.

    Attributes:
      pieces: as the model saw them.
      guesses: one a masked piece.
      image: its own.
      other: the wrong one.
    """

    pieces: list[str]
    guesses: list[Guess]
    image: UInt8[np.ndarray, "height width 3"]
    other: UInt8[np.ndarray, "height width 3"]


def spread(records: Records, count: int) -> list[Mapping[str, Any]]:
    """A few records from all over a set."""
    return [
        records[int(index)] for index in np.linspace(0, len(records) - 1, min(count, len(records)))
    ]


def pictures(run: OpenedRun, records: Records) -> Pictures | None:
    """Masked images and predictions of them; None if the visual tokenizer cannot decode tokens."""
    model, visual = run.model, run.model.visual
    if not draws_pictures(visual):
        return None
    side = model.task.model.patch_size
    larger = side // visual.tokenizer.config.patch_size
    batch = _batch(run, records, "image")
    codes = _encode(run, batch["image"])
    variables = {"params": run.params}
    logits: Any = model.network.apply(variables, model_inputs(batch), method="logits")
    logits = logits[Modality.VISION]
    guessed = codes.at[jnp.arange(len(codes))[:, None], batch["masked_patches"]].set(
        jnp.argmax(logits, axis=-1)
    )
    hidden = is_at_positions(jnp.asarray(batch["masked_patches"]), codes.shape[1])

    def seen(tokens: jax.Array) -> np.ndarray:
        images = pictures_of(visual, tokens)
        return images.repeat(larger, axis=1).repeat(larger, axis=2)

    predicted, own = seen(guessed), seen(codes)
    original = np.asarray(batch["image"])
    grid = np.asarray(hidden).reshape(-1, model.task.model.grid, model.task.model.grid)
    grey = grid.repeat(side, axis=1).repeat(side, axis=2)[..., None]
    right = np.asarray(((guessed == codes) & hidden).sum(axis=1) / hidden.sum(axis=1))
    return Pictures(
        original, np.where(grey, MASK_GREY, original).astype(np.uint8), own, predicted, right
    )


def code_use(run: OpenedRun, records: Records, batch_size: int = 64) -> Int[np.ndarray, " C"]:
    """How often each visual token comes up in some images."""
    counts = np.zeros(run.model.task.model.codes, np.int64)
    compiled = jax.jit(lambda image: _encode(run, image))
    make = run.model.make_example("image", False)
    examples = EvaluationExamples(records, make, batch_size, seed=0)
    with closing(pipeline.batches(examples, batch_size)) as batches:
        for batch in batches:
            codes = np.asarray(compiled(batch["image"]))[batch["weight"] > 0]
            counts += np.bincount(codes.ravel(), minlength=len(counts))
    return counts


def captions(run: OpenedRun, records: Records) -> list[Caption]:
    """Masked captions and the guesses for each masked piece, with the right and a wrong image."""
    text = run.model.text
    own = _batch(run, records, "pair")
    other = _batch(run, Rematched(records, wrong_partners(records, 0), "image"), "pair")
    right, wrong = (_likeliest(run, batch) for batch in (own, other))
    found = []
    for row in range(len(records)):
        pieces = [text.piece(piece) for piece in own["text"][row] if piece != Special.PAD]
        guesses = [
            Guess(
                position=int(own["text_masked"][row, slot]),
                truth=text.piece(own["text_targets"][row, slot]),
                right=[
                    (text.piece(piece), float(share))
                    for share, piece in zip(*(a[row, slot] for a in right), strict=True)
                ],
                wrong=[
                    (text.piece(piece), float(share))
                    for share, piece in zip(*(a[row, slot] for a in wrong), strict=True)
                ],
            )
            for slot in np.flatnonzero(own["text_weights"][row])
        ]
        found.append(Caption(pieces, guesses, own["image"][row], other["image"][row]))
    return found


def _likeliest(run: OpenedRun, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    variables = {"params": run.params}
    logits: Any = run.model.network.apply(variables, model_inputs(batch), method="logits")
    logits = logits[Modality.LANGUAGE]
    shares, pieces = jax.lax.top_k(jax.nn.softmax(logits), GUESSES)
    return np.asarray(shares), np.asarray(pieces)


def _encode(run: OpenedRun, image: Any) -> jax.Array:
    return encode(run.model.visual.tokenizer, run.model.visual.frozen, jnp.asarray(image))


def _batch(run: OpenedRun, records: Records, stream: str) -> dict[str, np.ndarray]:
    make = run.model.make_example(stream, False)
    count, seed = len(records), run.config.run.seed
    examples = EvaluationExamples(records, make, count, seed=seed)
    with closing(pipeline.batches(examples, count)) as batches:
        return next(batches)
