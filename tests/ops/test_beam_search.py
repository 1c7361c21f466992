"""Beam search: a slow statement of it, greedy choice, the whole of all texts, and other rows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ops.slow_beam_search import padded, slow_beam_search
from vlbeit_jax.ops.beam_search import Search
from vlbeit_jax.types import Special

PIECES, ROWS, LENGTH = 12, 40, 7
CLS, SEP, MASK = Special.CLS, Special.SEP, Special.MASK
ORDINARY = [Special.UNKNOWN, *range(MASK + 1, PIECES)]


def tables(seed=0, ends=0.0):
    """Log-probabilities by row, position, piece before and piece. SEP is likelier by ``ends``."""
    logits = np.random.default_rng(seed).normal(size=(ROWS, LENGTH, PIECES, PIECES)) * 2
    logits[..., SEP] += ends
    return jax.nn.log_softmax(logits.astype(np.float32))


def searched(table, **settings):
    """The search with a network that knows the piece before, and checks what it is shown."""

    def predict(text, position):
        at = jnp.arange(LENGTH)
        hidden = jnp.where(at == position, text == MASK, True) & (text[..., 0] == CLS)[..., None]
        unseen = jnp.where(at > position, text == Special.PAD, True)
        before = text[:, :, position - 1]
        found = table[jnp.arange(len(text))[:, None], position, before]
        return jnp.where((hidden & unseen).all(axis=-1, keepdims=True), found, jnp.nan)

    return jax.device_get(jax.jit(lambda: Search(LENGTH, **settings)(predict, len(table)))())


def slow(table, beams, penalty):
    """One row of a table."""
    shares = np.asarray(table, np.float64)
    return slow_beam_search(lambda text: shares[len(text), text[-1]], LENGTH, beams, penalty)


@pytest.mark.parametrize("ends", [0.0, 3.0], ids=["long", "short"])
@pytest.mark.parametrize(("beams", "penalty"), [(1, 0.6), (2, 0.0), (3, 0.6), (5, 2.0)])
def test_the_search_is_that_of_a_slow_statement(beams, penalty, ends):
    table = tables(beams, ends)
    found = searched(table, beams=beams, penalty=penalty)
    lengths = set()
    for row, text in enumerate(found.text):
        _, total, expected = slow(table[row], beams, penalty)
        assert text.tolist() == padded(expected, LENGTH)
        assert found.log_probability[row] == pytest.approx(total, abs=1e-5)
        lengths.add(len(expected))
    assert len(lengths) > 2  # Rows end at different positions.


def test_one_beam_takes_the_likeliest_piece_until_it_is_the_end():
    table = tables(1, 2.0)
    found = searched(table, beams=1)
    allowed = [SEP, *ORDINARY]
    for row, text in enumerate(found.text):
        expected = [CLS]
        while expected[-1] != SEP:
            shares = np.asarray(table[row, len(expected), expected[-1]])
            last = len(expected) == LENGTH - 1
            expected.append(SEP if last else allowed[int(np.argmax(shares[allowed]))])
        assert text.tolist() == padded(expected, LENGTH)
    # More beams find likelier texts, in most rows.
    wide = searched(table, beams=4, penalty=0.0)
    assert (wide.log_probability > found.log_probability + 1e-4).mean() > 0.3


def test_enough_beams_find_the_best_of_all_texts():
    """With a hundred beams nothing that could be best is left out of texts of 4 positions."""
    table = np.array(tables(7, 1.0)[:6])
    table[:, 4:, :, :] = -1e4  # Texts of 5 positions and more are hopeless.
    found = searched(jnp.asarray(table), beams=100, penalty=0.6)
    for row in range(6):
        texts = [
            [CLS, *pieces, SEP]
            for count in range(3)
            for pieces in itertools.product(ORDINARY, repeat=count)
        ]
        totals = [
            sum(float(table[row, at, text[at - 1], text[at]]) for at in range(1, len(text)))
            for text in texts
        ]
        scores = [total / len(text) ** 0.6 for total, text in zip(totals, texts, strict=True)]
        best = int(np.argmax(scores))
        assert found.text[row].tolist() == padded(texts[best], LENGTH)


def test_rows_do_not_depend_on_other_rows():
    table = tables(3)
    whole = searched(table)
    part = searched(table[5:8])
    np.testing.assert_array_equal(part.text, whole.text[5:8])
    np.testing.assert_array_equal(part.log_probability, whole.log_probability[5:8])
