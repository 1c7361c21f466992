"""The visual tokens: how many are in use, and what they keep of a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.records import EvenRecords, Records
from vlbeit_jax.report import figures
from vlbeit_jax.report.content import curves
from vlbeit_jax.report.markup import Section, element, note, words
from vlbeit_jax.report.samples import code_use
from vlbeit_jax.report.verdicts import Level, Verdict
from vlbeit_jax.shapes import Int
from vlbeit_jax.tasks.visual_tokens import VisualTokens

FEW = 0.5  # Share of the visual tokens: below it, some of the codebook is wasted.
# Held-out pictures that are looked at. With 196 patches each, they hold each of VL-BEiT's 8,192
# tokens 24 times on average. All of a large set would take hours on a CPU.
MOST_PICTURES = 1000
COLLAPSED = 0.1  # As VisualTokenizerConfig.collapse_below: a warning during training.


def codebook_verdict(used: int, codes: int, seen: int, held_out: int) -> Verdict:
    """Returns whether enough visual tokens are in use.

    Args:
      used: how many occur in the pictures that were looked at.
      codes: how many there are.
      seen: pictures that were looked at.
      held_out: pictures that are held out.
    """
    where = f"the {seen:,}" if seen == held_out else f"{seen:,} of {held_out:,}"
    spaced = "" if seen == held_out else ", evenly spaced over the set"
    told = f"{used:,} of {codes:,} visual tokens occur in {where} held-out pictures{spaced}"
    if used < COLLAPSED * codes:
        reason = f"{told}. The codebook has collapsed: the tokens say little about a picture."
        return Verdict(Level.BAD, "few tokens in use", reason)
    if used < FEW * codes:
        reason = f"{told}. With so few pictures that may be all that they need, or some are wasted."
        return Verdict(Level.UNCLEAR, "many tokens unused", reason)
    return Verdict(Level.GOOD, "tokens in use", f"{told}.")


def perplexity(counts: Int[np.ndarray, " C"]) -> float:
    """Returns how many equally frequent tokens would be as varied."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(share * np.log(share)).sum()))


def codebook_section(
    visual: VisualTokens,
    views: Views,
    records: Records,
    metrics: Sequence[Mapping[str, Any]],
    out: pathlib.Path,
) -> tuple[Section, Verdict]:
    """Returns how often the visual tokens are used, and the verdict.

    Args:
      visual: the tokenizer.
      views: how an image becomes its input.
      records: held-out ones with images.
      metrics: of the tokenizer's training.
      out: folder of the page.
    """
    chosen = EvenRecords(records, MOST_PICTURES)
    counts = code_use(visual, views, chosen)
    used = int((counts > 0).sum())
    verdict = codebook_verdict(used, len(counts), len(chosen), len(records))
    body = [
        words(
            "The visual tokenizer gives each patch of a picture one of "
            f"{len(counts):,} visual tokens. They are the answers that the model learns to predict "
            "for hidden patches."
        ),
        element("p", verdict.cell()),
        note(
            f"Their perplexity is {perplexity(counts):.0f}: so many equally frequent tokens would "
            "be as varied. The most frequent one stands for "
            f"{counts.max() / max(counts.sum(), 1):.1%} of the patches, often for a plain "
            "background."
        ),
        curves(figures.codebook_panels(counts, metrics), out, "codebook"),
    ]
    if panels := figures.loss_panels(metrics):
        body += [element("h3", "Training of the visual tokenizer")]
        body += [curves(panels, out, "tokenizer_loss")]
    return Section("Visual tokens", body), verdict
