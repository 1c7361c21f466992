"""``fill_mask`` and ``reconstruct``: independent statements, and mistakes."""

import dataclasses

import numpy as np
import pytest

from tests.models.published_weights import vlmo_weights
from tests.models.tiny_models import reference_net
from tests.references import vlbeit as reference
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import masked_pictures
from vlbeit_jax.types import Special

PICTURE = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)


def expected_shares(model, row, position, picture):
    weights = vlmo_weights(model._params, model.config)
    given = {} if picture is None else {"image": picture[None].astype(np.float64) / 127.5 - 1}
    found = reference.vlbeit(
        weights, reference_net(model.config), ids=row[None], valid=row[None] != Special.PAD, **given
    )
    logits = found["text"][0, position]
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


@pytest.mark.parametrize("picture", [None, PICTURE], ids=["alone", "with its image"])
def test_masks_are_filled_as_an_independent_statement_says(random_model, picture):
    found = random_model.fill_mask("a <mask> disc <mask>", picture, top=3)
    first, second = map(random_model._text.encode, ("a", "disc"))
    pieces = [Special.CLS, *first, Special.MASK, *second, Special.MASK, Special.SEP]
    row = np.full(random_model.config.text_positions, Special.PAD)
    row[: len(pieces)] = pieces
    places = len(first) + 1, len(pieces) - 2
    assert [len(each) for each in found] == [3, 3]
    for answers, position in zip(found, places, strict=True):
        shares = expected_shares(random_model, row, position, picture)
        best = np.argsort(-shares)[:3]
        assert [piece for piece, _ in answers] == [random_model._text.piece(each) for each in best]
        np.testing.assert_allclose([share for _, share in answers], shares[best], rtol=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a disc", "has no <mask>"),
        ("<mask> " + "a " * 40, "word pieces, but the model takes 14"),
        (None, "text=None is no text: give a string"),
    ],
)
def test_texts_that_cannot_be_filled_are_refused(random_model, text, said):
    with pytest.raises(UsageError, match=said):
        random_model.fill_mask(text)


@pytest.mark.parametrize("top", [0, -1, 2.5, "3", True])
def test_a_number_of_answers_is_a_whole_number_from_1(random_model, top):
    with pytest.raises(UsageError, match=f"top={top!r}: give how many answers to list"):
        random_model.fill_mask("a <mask>", top=top)


def test_hidden_patches_alone_are_predicted(random_model):
    views = random_model.masked_views(PICTURE, hidden=0.25, seed=3)
    patch, grid = random_model.config.patch_size, random_model.config.grid
    hidden = (views.masked == 127).all(axis=2).reshape(grid, patch, grid, patch).all(axis=(1, 3))
    assert hidden.sum() == round(0.25 * grid**2)
    np.testing.assert_array_equal(views.original, PICTURE)
    shown = ~hidden.repeat(patch, axis=0).repeat(patch, axis=1)
    np.testing.assert_array_equal(views.masked[shown], PICTURE[shown])
    assert 0 <= views.accuracy <= 1
    np.testing.assert_array_equal(random_model.reconstruct(PICTURE, 0.25, seed=3), views.predicted)
    other = random_model.masked_views(PICTURE, hidden=0.25, seed=4)
    assert (other.masked != views.masked).any()


def test_a_picture_without_wrong_tokens_is_drawn_as_its_own(random_model):
    """Where every hidden token is predicted rightly, both pictures are the same, else not."""
    seen = set()
    for seed in range(8):
        views = random_model.masked_views(PICTURE, hidden=0.05, seed=seed)
        same = np.array_equal(views.predicted, views.through_tokens)
        assert same == (views.accuracy == 1)
        seen.add(same)
    assert False in seen


def test_a_text_belongs_to_one_picture(random_model):
    with pytest.raises(UsageError, match="an object of type list is no picture"):
        random_model.fill_mask("a <mask>", [PICTURE, PICTURE])


def test_a_tokenizer_that_draws_no_pixels_is_refused_before_anything_is_compiled(
    random_model, monkeypatch
):
    visual = random_model._visual
    features = dataclasses.replace(visual.tokenizer.config, teacher="clip")
    other = visual._replace(tokenizer=visual.tokenizer.clone(config=features))
    monkeypatch.setattr(random_model, "_visual", other)
    monkeypatch.setattr(masked_pictures, "_tokens", None)
    with pytest.raises(UsageError, match="cannot draw pictures: .*task.model.teacher=pixels"):
        random_model.reconstruct(PICTURE)


@pytest.mark.parametrize("hidden", [0, 1.1, -0.2, "a lot", None])
def test_shares_that_hide_nothing_are_refused(random_model, hidden):
    with pytest.raises(UsageError, match="give the share of hidden patches"):
        random_model.reconstruct(PICTURE, hidden)
