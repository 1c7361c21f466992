"""Losses and gradients stay finite for masks and texts at every extreme: nothing, or everything.

Cases are drawn at random around the extremes: nothing is masked, all is; a text is all padding; an
image is one patch; every row of a batch is padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.objectives.base import ROW, Context, Variables
from vlbeit_jax.runtime.synthetic import random_state
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training import gradients
from vlbeit_jax.types import Special

ROWS, PIECES, CASES = 3, 5, 8
SHARES = (0.0, 0.0, 0.3, 1.0, 1.0)  # The extremes come up most often.


@functools.cache
def task_of(stream, patches):
    side = 8 * int(patches**0.5)
    model = tiny.changed(tiny.SMALL, image_size=side, depth=1, codes=16, drop_path=0.3)
    images = {"batch_size": ROWS, "num_masked_patches": 1, "mask_block": 1}
    tokenizer = VisualTokenizerConfig(image_size=side, patch_size=8, codes=16)
    task = Pretrain(
        schedule=stream,
        model=model,
        image=ImageStreamConfig(**images),
        text=TextStreamConfig(batch_size=ROWS, text_length=PIECES),
        pair=PairStreamConfig(**images, text_length=PIECES),
        tokenizer_model=tokenizer,
    )
    _, _, shapes, *_ = abstract_step(Config(task=task), tiny.mesh_of())
    return task.streams()[stream].objective, random_state(shapes, 0), model


def rows_of(draw, stream, model, masked):
    """A batch in which every row draws its own extreme."""
    rows = {"weight": draw.choice([0.0, 1.0, 1.0], ROWS).astype(np.float32), ROW: np.arange(ROWS)}
    if stream != "text":
        side, patches = model.image_size, model.patches
        places = [np.sort(draw.permutation(patches)[:masked]) for _ in range(ROWS)]
        rows |= {
            "image": np.full((ROWS, side, side, 3), draw.choice([0, 255]), np.uint8),
            "masked_patches": np.array(places, np.int32).reshape(ROWS, masked),
            "image_targets": draw.integers(0, model.codes, (ROWS, masked), np.int32),
        }
    if stream != "image":
        text = draw.integers(Special.MASK + 1, model.vocabulary, (ROWS, PIECES))
        for row in text:
            row[draw.choice([0, 1, 3, PIECES]) :] = model.pad
        # A slot per piece; slots without a mask point to the first piece, and have weight 0.
        masks = (draw.random((ROWS, PIECES)) < draw.choice(SHARES, (ROWS, 1))) & (text != model.pad)
        rows |= {
            "text": text.astype(np.int32),
            "text_masked": np.where(masks, np.arange(PIECES), 0).astype(np.int32),
            "text_targets": text.astype(np.int32),
            "text_weights": masks.astype(np.float32),
        }
    return rows


def extremes(rows):
    """The batch, and the same one with nothing masked, without a text, and of padding rows only."""
    yield rows
    yield rows | {"weight": np.zeros(ROWS, np.float32)}
    if "text" in rows:
        none = {"text_masked": np.zeros_like(rows["text_masked"])}
        none["text_weights"] = np.zeros_like(rows["text_weights"])
        yield rows | none
        yield rows | none | {"text": np.full_like(rows["text"], Special.PAD)}
        every = np.arange(PIECES, dtype=np.int32) * np.ones((ROWS, 1), np.int32)
        yield rows | {"text_masked": every, "text_weights": np.ones((ROWS, PIECES), np.float32)}


def gradients_of(objective, state, stream):
    """A compiled function from rows to losses and gradients."""

    def compute(rows):
        variables = Variables(state.params, state.model_state[stream], {})
        weights = objective.weights(rows)
        found, terms, _ = gradients.accumulated_gradients(
            objective, variables, rows, weights, Context(jax.random.key(0)), 1
        )
        return {name: term.means()["loss"] for name, term in terms.items()}, found

    return jax.jit(compute)


def is_finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("stream", "patches", "masked"),
    [
        ("text", 4, 0),
        ("image", 4, 0),
        ("image", 4, 4),
        ("image", 1, 1),
        ("pair", 4, 0),
        ("pair", 1, 1),
    ],
)
def test_losses_and_gradients_are_finite(stream, patches, masked):
    objective, state, model = task_of(stream, patches)
    compute = gradients_of(objective, state, stream)
    for case in range(CASES):
        draw = np.random.default_rng([case, patches, masked])
        for rows in extremes(rows_of(draw, stream, model, masked)):
            losses, found = compute(rows)
            assert is_finite(losses) and is_finite(found), (case, rows)
            if not rows["weight"].any():
                assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_a_plain_mean_would_not_be_finite(monkeypatch):
    """The control: the same extremes, with a loss that is divided by its weight as it is."""
    monkeypatch.setattr(gradients, "mean", lambda total, weight: jnp.divide(total, weight))
    objective, state, model = task_of("text", 4)
    compute = gradients_of(objective, state, "text")
    rows = rows_of(np.random.default_rng(0), "text", model, 0)
    assert not all(is_finite(compute(each)[1]) for each in extremes(rows))
