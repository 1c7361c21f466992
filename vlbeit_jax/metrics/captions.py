"""BLEU, ROUGE-L and CIDEr-D of captions, as COCO's evaluation defines them.

Needs the standard library alone: an export for PyTorch takes this file as it is.

COCO's own evaluation first runs the Penn Treebank tokenizer, a program in Java. ``words`` does what
that one does with ordinary captions. Figures by another tokenizer differ by a few tenths of a
point, so a result must name the tokenizer (``TOKENIZER``).
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TOKENIZER = (
    "vlbeit_jax words 1: lower case; punctuation is left out; n't and 's, 'm, 'd, 're, 've, 'll "
    "are words of their own; hyphens and slashes stay inside words, commas, points and colons "
    "inside numbers, points inside single letters"
)
LONGEST = 4  # Words of an n-gram.
BETA = 1.2  # ROUGE-L weighs recall so many times as much as precision.
SIGMA = 6.0  # Of CIDEr-D's penalty for another length.
CLITICS = r"n't\b|'(?:s|m|d|re|ve|ll)\b"
WORD = re.compile(
    rf"{CLITICS}|\d+(?:[.,:/]\d+)+|(?:[^\W\d_]\.){{2,}}|\w+?(?=n't\b)|\w+(?:[-/]\w+)*|[^\w\s]"
)
PUNCTUATION = frozenset("'`\"()[]{}.?!,:;-\u2013\u2014\u2026\u201c\u201d\u2018\u00ab\u00bb")
Words = Sequence[str]
NGram = tuple[str, ...]
Weights = list[dict[NGram, float]]


class Scores(NamedTuple):
    """How well captions agree with those that people wrote.

    Attributes:
      bleu: BLEU-1 to BLEU-4 of all captions together, from 0 to 1.
      rouge_l: of each caption, from 0 to 1.
      cider: CIDEr-D of each caption, from 0 to 10.
    """

    bleu: tuple[float, ...]
    rouge_l: list[float]
    cider: list[float]


def words(caption: str) -> list[str]:
    """Returns the words of a caption, by the rules that ``TOKENIZER`` states."""
    text = caption.lower().replace("\u2019", "'")
    return [word for word in WORD.findall(text) if word not in PUNCTUATION]


def scores(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """Returns the scores of a caption for each picture.

    Args:
      captions: words of one caption for each picture.
      references: words of the captions that people wrote for the same picture, at least one. They
        are also the documents in which CIDEr-D counts how rare an n-gram is. So its values on
        another set of pictures, or on a part of this one, cannot be compared.
    """
    pairs = list(zip(captions, references, strict=True))
    return Scores(bleu(pairs), [rouge_l(*pair) for pair in pairs], cider(pairs))


def bleu(pairs: Iterable[tuple[Words, Sequence[Words]]]) -> tuple[float, ...]:
    """Returns BLEU-1 to BLEU-4 (Papineni et al., 2002) of captions with their references.

    Nothing is smoothed: BLEU-n is 0 if no n-gram of any caption is right. A caption is compared in
    length with the reference that is closest, the shorter one of two.
    """
    right, given, length, wanted = [0] * LONGEST, [0] * LONGEST, 0, 0
    for caption, references in pairs:
        most: collections.Counter[NGram] = collections.Counter()
        for reference in references:
            most |= _ngrams(reference)
        for ngram, count in _ngrams(caption).items():
            given[len(ngram) - 1] += count
            right[len(ngram) - 1] += min(count, most[ngram])
        length += len(caption)
        wanted += min((abs(len(each) - len(caption)), len(each)) for each in references)[1]
    if not length:
        return (0.0,) * LONGEST
    brevity = min(1.0, math.exp(1 - wanted / length))
    shares = [hits / max(count, 1) for hits, count in zip(right, given, strict=True)]
    return tuple(brevity * math.prod(shares[:n]) ** (1 / n) for n in range(1, LONGEST + 1))


def rouge_l(caption: Words, references: Sequence[Words]) -> float:
    """Returns ROUGE-L (Lin, 2004): the F-measure of the longest common subsequence.

    As in COCO's evaluation, precision and recall are the best ones of all references, which may be
    those of two references.
    """
    common = [_longest_common(caption, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(caption)
    recall = max(each / len(ref) for each, ref in zip(common, references, strict=True) if ref)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def cider(pairs: Sequence[tuple[Words, Sequence[Words]]]) -> list[float]:
    """Returns CIDEr-D (Vedantam et al., 2015) of each caption with its references."""
    documents = collections.Counter(
        ngram for _, references in pairs for ngram in set().union(*map(_ngrams, references))
    )
    return [
        sum(_similarity(caption, reference, documents, len(pairs)) for reference in references)
        / len(references)
        for caption, references in pairs
    ]


def _similarity(
    caption: Words, reference: Words, documents: Mapping[NGram, int], count: int
) -> float:
    """Returns ten times the mean over n of the cosines of n-grams, weighted by their rarity."""
    ours, theirs = (_weights(each, documents, count) for each in (caption, reference))
    cosines = 0.0
    for own, other in zip(ours, theirs, strict=True):
        norms = _norm(own) * _norm(other)
        if norms:
            # What a caption repeats more often than the reference earns nothing.
            both = own.keys() & other.keys()
            cosines += sum(min(own[each], other[each]) * other[each] for each in both) / norms
    # The released code measures lengths in bigrams.
    difference = max(len(caption) - 1, 0) - max(len(reference) - 1, 0)
    return 10 * cosines / LONGEST * math.exp(-(difference**2) / (2 * SIGMA**2))


def _weights(text: Words, documents: Mapping[NGram, int], count: int) -> Weights:
    """Returns term frequency times inverse document frequency, of the n-grams of each length."""
    weights: Weights = [{} for _ in range(LONGEST)]
    for ngram, times in _ngrams(text).items():
        rarity = math.log(count) - math.log(max(1, documents.get(ngram, 0)))
        weights[len(ngram) - 1][ngram] = times * rarity
    return weights


def _norm(weights: Mapping[NGram, float]) -> float:
    return math.sqrt(sum(weight**2 for weight in weights.values()))


def _ngrams(text: Words) -> collections.Counter[NGram]:
    return collections.Counter(
        tuple(text[start : start + n])
        for n in range(1, LONGEST + 1)
        for start in range(len(text) - n + 1)
    )


def _longest_common(one: Words, other: Words) -> int:
    """Returns the length of the longest subsequence that two texts have in common."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, each in enumerate(other):
            row.append(before[place] + 1 if word == each else max(before[place + 1], row[place]))
        before = row
    return before[-1]
