"""The model's answers on a few held-out examples.

Images are decoded from predicted visual tokens; masked word pieces have the likeliest guesses.
"""

import functools
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.streams import TextStreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.images import ImageExample, Views
from vlbeit_jax.data.pieces import Fate, Piece, fate_of, readable
from vlbeit_jax.data.records import EvenRecords, Records
from vlbeit_jax.data.rematch import Rematched, wrong_partners
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import model_inputs
from vlbeit_jax.runtime.pretrained import OpenedRun
from vlbeit_jax.shapes import Int, UInt8
from vlbeit_jax.tasks.masked_pictures import MaskedPictures, masked_pictures
from vlbeit_jax.tasks.visual_tokens import VisualTokens, draws_pictures, pictures_of
from vlbeit_jax.types import Modality, Special

GUESSES = 5


class Answer(NamedTuple):
    """What the model says of one masked word piece.

    Attributes:
      likeliest: pieces with their probability, the likeliest first.
      of_truth: probability of the right piece.
    """

    likeliest: list[tuple[Piece, float]]
    of_truth: float


class Guess(NamedTuple):
    """One masked word piece.

    Attributes:
      position: of ``MaskedText.pieces``.
      truth: the right piece.
      fate: what the model saw instead.
      own: answer as the record is.
      wrong: answer with the image of another record; None for texts alone.
    """

    position: int
    truth: Piece
    fate: Fate
    own: Answer
    wrong: Answer | None


class MaskedText(NamedTuple):
    """A text, alone or with a picture, some of whose pieces are masked.

    Attributes:
      pieces: as the model saw them, without CLS, the last SEP and padding.
      guesses: one per masked piece.
      image: that belongs to the text; None for texts alone.
      other: the wrong image.
    """

    pieces: list[Piece]
    guesses: list[Guess]
    image: UInt8[np.ndarray, "height width 3"] | None
    other: UInt8[np.ndarray, "height width 3"] | None


def spread(records: Records, count: int) -> list[Mapping[str, Any]]:
    """Returns a few records from all over a set, so that nobody picks them by hand."""
    chosen = EvenRecords(records, count)
    return [chosen[index] for index in range(len(chosen))]


def pictures(run: OpenedRun, records: Records, stream: str = "image") -> MaskedPictures | None:
    """Returns masked images and predictions of them; None if the tokenizer cannot draw.

    Args:
      run: of pretraining.
      records: with images, and with captions if the stream has them.
      stream: "image" or "pair": whether the model also sees what is left of the caption.
    """
    model = run.model
    if not draws_pictures(model.visual):
        return None
    batch = _batch(run, records, stream)
    return masked_pictures(
        model.network,
        run.params,
        model.visual,
        batch["image"],
        batch["masked_patches"],
        batch.get("text"),
    )


def through_tokens(
    visual: VisualTokens, views: Views, records: Records
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns images, and what is drawn of their visual tokens; None if the tokenizer cannot draw.

    Args:
      visual: the tokenizer.
      views: how an image becomes an input.
      records: with images.
    """
    if not draws_pictures(visual):
        return None
    examples = EvaluationExamples(records, ImageExample(views), len(records), seed=0)
    with closing(pipeline.batches(examples, len(records))) as batches:
        images = next(batches)["image"]
    return images, pictures_of(visual, _encode(visual, images))


def code_use(
    visual: VisualTokens, views: Views, records: Records, batch_size: int = 64
) -> Int[np.ndarray, " C"]:
    """Returns how often each visual token comes up in some images.

    Args:
      visual: the tokenizer.
      views: how an image becomes an input.
      records: with images.
      batch_size: images at a time.
    """
    counts = np.zeros(visual.tokenizer.config.codes, np.int64)
    compiled = jax.jit(lambda image: _encode(visual, image))
    examples = EvaluationExamples(records, ImageExample(views), batch_size, seed=0)
    with closing(pipeline.batches(examples, batch_size)) as batches:
        for batch in batches:
            codes = np.asarray(compiled(batch["image"]))[batch["weight"] > 0]
            counts += np.bincount(codes.ravel(), minlength=len(counts))
    return counts


def masked_texts(run: OpenedRun, records: Records, stream: str) -> list[MaskedText]:
    """Returns masked texts and the guesses for each masked piece.

    Args:
      run: of pretraining.
      records: of the stream.
      stream: "text", or "pair": then also with the image of another record.
    """
    assert isinstance(run.model.stream_config(stream), TextStreamConfig), stream
    own, other = _batch(run, records, stream), None
    answers = [_answers(run, own)]
    if "image" in own and len(records) > 1:
        rematched = Rematched(records, wrong_partners(records, run.config.run.seed), "image")
        other = _batch(run, rematched, stream)
        answers.append(_answers(run, other))
    return [_masked_text(run, row, own, other, answers) for row in range(len(records))]


def _masked_text(
    run: OpenedRun,
    row: int,
    own: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray] | None,
    answers: list[np.ndarray],
) -> MaskedText:
    text = run.model.text
    seen = own["text"][row]
    length = int((seen != Special.PAD).sum())
    guesses = []
    for slot in np.flatnonzero(own["text_weights"][row]):
        position, truth = int(own["text_masked"][row, slot]), int(own["text_targets"][row, slot])
        told = [_answer(run, shares[row, slot], truth) for shares in answers]
        fate = fate_of(int(seen[position]), truth)
        wrong = told[1] if len(told) > 1 else None
        guesses.append(Guess(position - 1, readable(text, truth), fate, told[0], wrong))
    return MaskedText(
        pieces=[readable(text, piece) for piece in seen[1 : length - 1]],
        guesses=guesses,
        image=own["image"][row] if "image" in own else None,
        other=other["image"][row] if other else None,
    )


def _answer(run: OpenedRun, shares: np.ndarray, truth: int) -> Answer:
    best = np.argsort(-shares, kind="stable")[:GUESSES]
    likeliest = [(readable(run.model.text, piece), float(shares[piece])) for piece in best]
    return Answer(likeliest, float(shares[truth]))


def _answers(run: OpenedRun, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the probability of each word piece at each masked position."""
    return np.asarray(_probabilities(run.model.network, run.params, model_inputs(batch)))


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network: VLBEiT, params: Any, inputs: Inputs) -> jax.Array:
    logits: Any = network.apply({"params": params}, inputs, method="logits")
    return jax.nn.softmax(logits[Modality.LANGUAGE])


def _encode(visual: VisualTokens, image: Any) -> jax.Array:
    return encode(visual.tokenizer, visual.frozen, jnp.asarray(image))


def _batch(run: OpenedRun, records: Records, stream: str) -> dict[str, np.ndarray]:
    make = run.model.make_example(stream, False)
    count, seed = len(records), run.config.run.seed
    examples = EvaluationExamples(records, make, count, seed=seed)
    with closing(pipeline.batches(examples, count)) as batches:
        return next(batches)
