"""Masks of captions: their number, SEP among them, and captions that were cut."""

import numpy as np
import pytest

from tests.tasks.captioned_world import captioning_task, prepare, tokenizer_in
from tests.tasks.paired_world import config
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.masking import caption_slots, mask_caption
from vlbeit_jax.types import Special

VOCABULARY, LENGTH, SHARE = 300, 12, 0.7


def row_of(pieces):
    row = np.full(LENGTH, Special.PAD, np.int32)
    row[: pieces + 2] = [Special.CLS, *range(10, 10 + pieces), Special.SEP]
    return row


@pytest.mark.parametrize("pieces", range(LENGTH - 1))
def test_so_many_pieces_are_masked_and_sep_is_among_them(pieces):
    text, chosen = row_of(pieces), np.zeros(LENGTH, int)
    expected = max(1, min(int((pieces + 2) * SHARE + 0.5), pieces + 1))
    for seed in range(200):
        found = mask_caption(Draws(seed), text, SHARE, VOCABULARY, whole=True)
        used = found.weights > 0
        assert used.sum() == expected and len(used) == caption_slots(LENGTH, SHARE)
        positions = found.positions[used]
        assert (np.diff(positions) > 0).all() and positions.min() >= 1
        np.testing.assert_array_equal(found.targets[used], text[positions])
        hidden = np.setdiff1d(np.arange(LENGTH), positions)
        np.testing.assert_array_equal(found.text[hidden], text[hidden])
        chosen[positions] += 1
    assert not chosen[pieces + 2 :].any() and not chosen[0]
    assert (chosen[1 : pieces + 2] > 60).all()  # Each of them, SEP too.


def test_what_becomes_of_masked_pieces_is_berts():
    text, kinds = row_of(10), np.zeros(3)
    for seed in range(1000):
        found = mask_caption(Draws(seed), text, SHARE, VOCABULARY, whole=True)
        at = found.positions[found.weights > 0]
        kinds += [
            (found.text[at] == Special.MASK).sum(),
            (found.text[at] == text[at]).sum(),
            (found.text[at] > Special.MASK).sum() - (found.text[at] == text[at]).sum(),
        ]
    # Where SEP stays, it is no ordinary piece: the last two are right to a few in a hundred.
    np.testing.assert_allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.015)


def test_a_caption_that_is_cut_is_not_learnt_to_end():
    text = row_of(LENGTH - 2)
    for seed in range(100):
        found = mask_caption(Draws(seed), text, 1.0, VOCABULARY, whole=False)
        used = found.weights > 0
        np.testing.assert_array_equal(found.positions[used], np.arange(1, LENGTH - 1))
        assert found.text[-1] == Special.SEP
        whole = mask_caption(Draws(seed), text, 1.0, VOCABULARY, whole=True)
        assert whole.positions[whole.weights > 0].tolist() == list(range(1, LENGTH))


def test_examples_are_cut_and_masked_as_the_settings_say(tmp_path):
    (tmp_path / "own").mkdir()
    tokenizer, pairs = tokenizer_in(tmp_path / "own"), prepare(tmp_path / "own")
    for length in (3, 10):  # No caption fits into the first.
        task = captioning_task(pairs, tokenizer, {"text_length": length, "masked_text": 1.0})
        opened = task.open()
        data = opened.training_data(config(task, 2, evaluate_every=0).run)
        ends = set()
        specs = task.streams()["pair"].example
        for index in range(40):
            example = data.examples("pair")[index]
            assert {name: (leaf.shape, leaf.dtype) for name, leaf in example.items()} == {
                name: (spec.shape, np.dtype(spec.dtype)) for name, spec in specs.items()
            }
            ends.add(Special.SEP in example["text_targets"].tolist())
        assert ends == ({False} if length == 3 else {True})
