"""What a person would want to know of a data set before training on it."""

from collections.abc import Iterator

import numpy as np

from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet
from vlbeit_jax.report.measures import Measures, repeated
from vlbeit_jax.report.verdicts import Level, Verdict

MOST, SOME, FEW = 0.5, 0.1, 0.01
LARGEST_RATIO = 3.0
EXAMPLE = 60  # Characters of a text that is quoted.


def warnings_of(
    prepared: PreparedSet, measures: Measures, side: int, length: int, batch_size: int
) -> Iterator[Verdict]:
    """Yields what is suspicious of a set.

    Args:
      prepared: the set.
      measures: of its records.
      side: of the network's picture, pixels; 0 without pictures.
      length: of a row of the network's text, pieces; 0 without texts.
      batch_size: of the stream that reads the set.
    """
    if not prepared.count(VALIDATION):
        yield Verdict(
            Level.BAD,
            "no validation split",
            "Nothing is held out, so nothing tells whether the network only learns its training "
            "data by heart. Prepare the set again with a larger --validation_share.",
        )
    if prepared.count(TRAIN) < batch_size:
        yield Verdict(
            Level.UNCLEAR,
            "fewer records than a batch",
            f"A batch of {batch_size:,} has some of the {prepared.count(TRAIN):,} training records "
            "more than once.",
        )
    yield from _drops(prepared)
    yield from _repetitions(prepared)
    yield from _texts(measures, length)
    yield from _pictures(measures, side)


def _drops(prepared: PreparedSet) -> Iterator[Verdict]:
    dropped = {**prepared.meta.get("dropped", {}), **prepared.meta.get("left_out", {})}
    kept = sum(prepared.meta["counts"].values())
    share = sum(dropped.values()) / max(sum(dropped.values()) + kept, 1)
    if share > SOME:
        most = max(dropped, key=lambda name: dropped[name])
        yield Verdict(
            Level.BAD if share > MOST else Level.UNCLEAR,
            "many records left out",
            f"{share:.0%} of what was read is not in the set; the most frequent reason is "
            f"{most.replace('_', ' ')} ({dropped[most]:,}).",
        )


def _repetitions(prepared: PreparedSet) -> Iterator[Verdict]:
    for what, (different, records) in repeated(prepared).items():
        # A record may have several captions, so there may be more texts than records.
        if different < (1 - SOME) * records:
            yield Verdict(
                Level.UNCLEAR,
                f"repeated {what}",
                f"{records:,} training records have only {different:,} different {what}.",
            )


def _texts(measures: Measures, length: int) -> Iterator[Verdict]:
    total = sum(measures.texts.values())
    if total > 1:
        text, count = measures.texts.most_common(1)[0]
        if count == total:
            yield Verdict(
                Level.BAD, "all texts are equal", f"Each of {total:,} texts is {_quoted(text)}."
            )
        elif count > SOME * total:
            yield Verdict(
                Level.UNCLEAR,
                "one text is very frequent",
                f"{count / total:.0%} of {total:,} texts are {_quoted(text)}.",
            )
    if empty := sum(count for text, count in measures.texts.items() if not text.strip()):
        yield Verdict(Level.BAD, "empty texts", f"{empty:,} of {total:,} texts have no character.")
    cut = float((measures.lengths > length).mean()) if len(measures.lengths) and length else 0.0
    if cut > FEW:
        yield Verdict(
            Level.BAD if cut > MOST else Level.UNCLEAR,
            "texts are cut",
            f"{cut:.0%} of the texts are longer than {length} pieces, and the network does not see "
            "their ends. Raise the stream's text_length, or train a larger vocabulary.",
        )
    unknown = measures.unknown / max(measures.pieces, 1)
    if unknown > FEW:
        yield Verdict(
            Level.BAD,
            "the tokenizer does not know the texts",
            f"{unknown:.0%} of the word pieces are unknown. Train the text tokenizer on "
            "these texts.",
        )


def _quoted(text: str) -> str:
    short = text if len(text) <= EXAMPLE else text[:EXAMPLE] + " ..."
    return f'"{short}"'


def _pictures(measures: Measures, side: int) -> Iterator[Verdict]:
    if not len(measures.widths):
        return
    shorter = np.minimum(measures.widths, measures.heights)
    enlarged = float((shorter < side).mean())
    if enlarged > SOME:
        yield Verdict(
            Level.BAD if enlarged > MOST else Level.UNCLEAR,
            "small pictures are enlarged",
            f"{enlarged:.0%} of the pictures have a side below the network's {side} pixels. "
            "Prepare larger pictures, or leave small ones out with --min_side.",
        )
    ratio = np.maximum(measures.widths, measures.heights) / np.maximum(shorter, 1)
    long = float((ratio > LARGEST_RATIO).mean())
    if long > SOME:
        yield Verdict(
            Level.UNCLEAR,
            "long pictures",
            f"{long:.0%} of the pictures are more than {LARGEST_RATIO:g} times as long as wide, so "
            "a crop shows a small part of them.",
        )
