"""Scores of captions: golden values, COCO's own code where it is installed, and the tokenizer."""

import contextlib
import io

import numpy as np
import pytest

from vlbeit_jax.metrics.captions import bleu, rouge_l, scores, words

REFERENCES = (
    ("a black dog runs on grass", "a dog running through a green field"),
    ("two people ride bikes", "a man and woman on bicycles"),
    ("a red apple on a table", "an apple sits on a wooden table"),
)
CAPTIONS = ("a black dog runs in a field", "two people riding bicycles", "a red apple")


def split(texts):
    return [text.split() for text in texts]


def test_golden_values():
    """Of pycocoevalcap 1.2 on the same texts, to all digits that were kept."""
    found = scores(split(CAPTIONS), [split(each) for each in REFERENCES])
    np.testing.assert_allclose(found.bleu, (0.69182, 0.55188, 0.45174, 0.34927), atol=5e-6)
    assert np.mean(found.rouge_l) == pytest.approx(0.58430, abs=5e-6)
    np.testing.assert_allclose(found.cider, (2.90934304, 1.337279, 2.4664495), atol=5e-8)
    assert np.mean(found.cider) == pytest.approx(2.237690515, abs=1e-9)


def test_a_caption_that_is_the_reference_has_the_largest_scores():
    texts = split(("one two three four five", "six seven eight nine ten"))
    found = scores(texts, [[text] for text in texts])
    assert found.bleu == pytest.approx((1,) * 4) and found.rouge_l == pytest.approx([1, 1])
    assert found.cider == pytest.approx([10, 10])


def test_captions_without_words_and_without_matches_score_nothing():
    references = [[["a", "dog"]], [["a", "cat"]]]
    for captions in ([[], []], [["one"], ["two"]]):
        found = scores(captions, references)
        assert found.bleu == (0,) * 4 and found.rouge_l == [0, 0] == found.cider
    # Of one picture, every n-gram is in all documents, so none is rare.
    assert scores([["a", "dog"]], references[:1]).cider == [0]


def test_repetitions_earn_nothing():
    references = [["the", "cat", "sat"]]
    assert bleu([(["the"] * 3, references)])[0] == pytest.approx(1 / 3)
    assert rouge_l(["the"] * 3, references) < rouge_l(["the", "cat"], references)
    others = [(["dog"], [["a", "dog"]])]
    many, once = (
        scores([caption, *(each for each, _ in others)], [references, others[0][1]]).cider[0]
        for caption in (["cat"] * 9, ["cat"])
    )
    assert many < once / 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A man's dog.", "a man 's dog"),
        ("It isn't, they can\u2019t!", "it is n't they ca n't"),
        ("Two (2) people - one black-and-white dog", "two 2 people one black-and-white dog"),
        ('1,000 birds, 3.5 m; "a, b"', "1,000 birds 3.5 m a b"),
        ("red,white and under_score", "red white and under_score"),
        ("50% off & more \N{DOG FACE}", "50 % off & more \N{DOG FACE}"),
        ("The U.S. flag at 5:30 p.m., 9/11 and/or", "the u.s. flag at 5:30 p.m. 9/11 and/or"),
        ("Señor Ñandú, ...", "señor ñandú"),
        ("?!", ""),
    ],
)
def test_words_of_captions(text, found):
    assert words(text) == found.split()


def test_scores_are_those_of_cocos_own_code():
    """On random texts with repetitions; ours has no smoothing, which shows only where nothing fits.

    pycocoevalcap holds 100 MB of Java programs beside the three metrics that this test needs, so no
    extra installs it: python -m pip install --no-deps pycocoevalcap==1.2
    """
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed; see this test")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rng, vocabulary = np.random.default_rng(0), [f"w{number}" for number in range(9)]

    def text(most=9):
        return [str(word) for word in rng.choice(vocabulary, rng.integers(1, most))]

    references = [[text() for _ in range(rng.integers(1, 6))] for _ in range(40)]
    # Some captions repeat a part of a reference, so that long n-grams fit too.
    captions = [[*each[0][: rng.integers(1, 9)], *text(3)] for each in references]
    found = scores(captions, references)
    gts = {n: [" ".join(ref) for ref in each] for n, each in enumerate(references)}
    res = {n: [" ".join(each)] for n, each in enumerate(captions)}
    with contextlib.redirect_stdout(io.StringIO()):  # It prints lengths.
        expected_bleu = Bleu(4).compute_score(gts, res)[0]
    np.testing.assert_allclose(found.bleu, expected_bleu, rtol=1e-6)
    np.testing.assert_allclose(found.rouge_l, Rouge().compute_score(gts, res)[1], rtol=1e-9)
    np.testing.assert_allclose(found.cider, Cider().compute_score(gts, res)[1], rtol=1e-9)
    assert min(found.cider) < max(found.cider) and found.bleu[3] > 0.1
