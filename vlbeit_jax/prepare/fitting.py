"""Whether captions are short enough to be learnt as a whole."""

import dataclasses

from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.prepare.item import Item

SHOWN = 60  # Characters of a caption in a message.


@dataclasses.dataclass(frozen=True)
class Fits:
    """Finds captions that are too long.

    Attributes:
      tokenizer: that will read the captions.
      length: word pieces that a caption may have, with CLS and SEP.
    """

    tokenizer: TextTokenizer
    length: int

    def __call__(self, item: Item) -> Item:
        """Returns the item, with a fault if one of its captions is too long."""
        if item.fault:
            return item
        for number, caption in enumerate(item.captions, 1):
            pieces = len(self.tokenizer.encode(caption)) + 2
            if pieces > self.length:
                fault = (
                    f"its caption {number} has {pieces} word pieces with CLS and SEP, more than "
                    f"--length={self.length}: {_start(caption)!r}"
                )
                # Crawls count what is dropped, by its reason.
                fault = fault if item.place else "caption_too_long"
                return dataclasses.replace(item, fault=fault)
        return item


def _start(caption: str) -> str:
    return caption if len(caption) <= SHOWN else f"{caption[:SHOWN]} …"
