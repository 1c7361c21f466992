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
from vlbeit_jax.runtime.pretrained import OpenedRun
from vlbeit_jax.shapes import Int, UInt8
from vlbeit_jax.tasks.masked_pictures import MaskedPictures, masked_pictures
from vlbeit_jax.tasks.visual_tokens import draws_pictures
from vlbeit_jax.types import Modality, Special

GUESSES = 5


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


def pictures(run: OpenedRun, records: Records) -> MaskedPictures | None:
    """Masked images and predictions of them; None if the visual tokenizer cannot decode tokens."""
    model = run.model
    if not draws_pictures(model.visual):
        return None
    batch = _batch(run, records, "image")
    return masked_pictures(
        model.network, run.params, model.visual, batch["image"], batch["masked_patches"]
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
