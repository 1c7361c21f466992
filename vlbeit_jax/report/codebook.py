"""The visual tokens: how many are in use, and what they keep of a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.records import Records
from vlbeit_jax.report import figures
from vlbeit_jax.report.content import curves
from vlbeit_jax.report.markup import Section, element, note, words
from vlbeit_jax.report.samples import code_use
from vlbeit_jax.report.verdicts import Level, Verdict
from vlbeit_jax.shapes import Int
from vlbeit_jax.tasks.visual_tokens import VisualTokens

FEW = 0.5  # Share of the visual tokens: below it, some of the codebook is wasted.
COLLAPSED = 0.1  # As VisualTokenizerConfig.collapse_below: a warning during training.


def codebook_verdict(used: int, codes: int) -> Verdict:
    """Returns whether enough visual tokens are in use.

    Args:
      used: how many occur in held-back pictures.
      codes: how many there are.
    """
    told = f"{used:,} of {codes:,} visual tokens occur in held-back pictures"
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
      records: held-back ones with images.
      metrics: of the tokenizer's training.
      out: folder of the page.
    """
    counts = code_use(visual, views, records)
    verdict = codebook_verdict(int((counts > 0).sum()), len(counts))
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
