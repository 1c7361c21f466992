"""Settings of a stream of training examples: its sources, and what happens to each record."""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import ClassVar

from vlbeit_jax.config.schema import (
    AT_LEAST_0,
    FOLLOWS_OR_AT_LEAST_0,
    POSITIVE,
    SHARE,
    setting,
)
from vlbeit_jax.types import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What every stream has.

    Attributes:
      kinds: of prepared sets that the stream takes; empty: the task knows them.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ()

    # A set is recognised by its fingerprint, so its folder may move.
    sources: tuple[str, ...] = setting(
        (), "folders of prepared data sets; sample:NAME is one in the package", may_change=True
    )
    weights: tuple[float, ...] = setting(
        (),
        "share of each source in the rows, in the order of sources, in any unit (2.5,1); empty: "
        "by their number of records",
    )
    batch_size: int = setting(2048, "examples per step, over all hosts", POSITIVE)

    def training_problems(self, name: str) -> Iterable[str]:
        """Returns what keeps a run from training on this stream.

        Args:
          name: of the stream, with which each text begins.
        """
        if not self.sources:
            yield f"{name}.sources is empty: name at least one prepared data set"
        if len(self.weights) not in (0, len(self.sources)):
            # Weights are a list of their own. A source may move, so it may change when a run
            # resumes; its weight may not.
            given = itertools.zip_longest(self.sources, self.weights, fillvalue="?")
            told = ", ".join(f"{source} {weight}" for source, weight in given)
            yield (
                f"{name}.weights: {len(self.weights)} for {len(self.sources)} sources ({told}); "
                "give each source its weight, in their order, or none: then each has as many rows "
                "as it has records"
            )
        for source, weight in zip(self.sources, self.weights, strict=False):
            if not 0 < weight < math.inf:
                yield (
                    f"{name}.weights: {weight} for {source}: must be > 0; to leave a source out, "
                    "remove it with its weight"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewStreamConfig(StreamConfig):
    """A stream with images, which may come from pairs; each is seen as a random view."""

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.IMAGES, Kind.PAIRS)

    crop_scale: float = setting(0.2, "smallest area of the random crop, share of the image", SHARE)
    colour_jitter: float = setting(
        0.4, "largest change of brightness, contrast and saturation", SHARE
    )
    flip: float = setting(0.5, "probability of a horizontal flip", SHARE)
    views: int = setting(0, "number of fixed views per image; 0: a new view every time", AT_LEAST_0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageStreamConfig(ViewStreamConfig):
    """Masked images."""

    num_masked_patches: int = setting(
        75, "masked patches of an image, exactly; -1: two of five", FOLLOWS_OR_AT_LEAST_0
    )
    mask_block: int = setting(
        16,
        "smallest block of the block-wise mask, patches; 0: one of twelve patches of the image",
        AT_LEAST_0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextStreamConfig(StreamConfig):
    """Masked texts: packed rows, or captions of pairs, each in a row of its own."""

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.TOKENS, Kind.PAIRS)

    text_length: int = setting(
        128,
        "word pieces of a text with its specials; 0: as packed rows have, or captions need",
        AT_LEAST_0,
    )
    masked_text: float = setting(0.15, "masked share of a text's word pieces", SHARE)
    whole_words: bool = setting(False, "mask all pieces of a word together")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairStreamConfig(ImageStreamConfig, TextStreamConfig):
    """Masked images with a masked caption."""

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.PAIRS,)
