"""Word pieces as a person reads them."""

import enum
import re
from typing import NamedTuple

import numpy as np

from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.types import Special

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Bytes that print nothing of themselves.
OF_BYTES = {0x09: "⇥", 0x0A: "↵", 0x0D: "↵", 0x20: "␣"}
END_OF_DOCUMENT = "¶"
OF_SPECIALS = {Special.SEP: END_OF_DOCUMENT, Special.UNKNOWN: "⁇", Special.MASK: "?"}


class Fate(enum.Enum):
    """What the model sees in the place of a masked word piece (BERT, section 3.1)."""

    HIDDEN = "hidden"
    REPLACED = "replaced"
    KEPT = "kept"


SIGNS = {Fate.HIDDEN: "?", Fate.REPLACED: "≠", Fate.KEPT: "="}


def fate_of(seen: int, truth: int) -> Fate:
    """Returns the fate of a masked piece.

    Args:
      seen: number of the piece in its place.
      truth: number of the right piece.
    """
    if seen == Special.MASK:
        return Fate.HIDDEN
    return Fate.KEPT if seen == truth else Fate.REPLACED


class Piece(NamedTuple):
    """A word piece.

    Attributes:
      text: without the mark of a new word; empty for the mark alone.
      starts_word: whether a space stands before it.
    """

    text: str
    starts_word: bool

    @property
    def alone(self) -> str:
        """Returns the piece as it is listed: a hyphen in front says that it continues a word."""
        if not self.text:
            return OF_BYTES[0x20]
        continues = not self.starts_word and self.text[:1].isalnum()
        return f"-{self.text}" if continues else self.text

    @property
    def in_text(self) -> str:
        """Returns the piece as it stands in its text."""
        return f" {self.text}" if self.starts_word else self.text


def readable(tokenizer: TextTokenizer, index: int | np.integer) -> Piece:
    """Returns a word piece in readable form.

    A piece that stands for one byte, such as ``<0x28>``, is shown as the character if it is one of
    ASCII, and otherwise as a byte: characters of several bytes are several pieces.
    """
    if int(index) in OF_SPECIALS:
        return Piece(OF_SPECIALS[Special(int(index))], True)
    written, starts = tokenizer.piece(index), bool(tokenizer.word_starts[int(index)])
    if match := BYTE.fullmatch(written):
        byte = int(match[1], 16)
        printable = chr(byte) if 0x21 <= byte < 0x7F else f"‹byte {match[1]}›"
        return Piece(OF_BYTES.get(byte, printable), False)
    return Piece(written[1:] if starts else written, starts)
