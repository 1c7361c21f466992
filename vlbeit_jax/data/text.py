"""The text tokenizer: a SentencePiece model with fixed special ids and a fingerprint."""

import functools
import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import fetched, place
from vlbeit_jax.shapes import Bool, Int
from vlbeit_jax.types import Special

MODEL_FILE, DESCRIPTION_FILE = "sentencepiece.model", "text_tokenizer.json"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"


class TextTokenizer:
    """Texts to word pieces and back.

    CLS, SEP, PAD and MASK are control symbols: raw text such as "<mask>" is split like any other
    and never becomes one.
    """

    def __init__(self, folder: str | pathlib.Path):
        """Opens a folder made by ``vlbeit_jax.text_tokenizer``.

        Raises:
          UsageError: the folder holds no tokenizer, or its pieces are not the ones it was written
            with.
        """
        self.folder = place(folder)
        try:
            described = json.loads((self.folder / DESCRIPTION_FILE).read_text())
            self._pieces = sentencepiece.SentencePieceProcessor(
                model_file=str(fetched(self.folder / MODEL_FILE))
            )
            written = described["fingerprint"]
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:  # SentencePiece raises RuntimeError for a missing file
            raise UsageError(
                f"no text tokenizer in {str(folder)!r} ({error}); make one with "
                "python -m vlbeit_jax.text_tokenizer"
            ) from error
        self.fingerprint = piece_fingerprint(self._pieces)
        if written != self.fingerprint:
            raise UsageError(
                f"the text tokenizer in {str(folder)!r} was changed: {DESCRIPTION_FILE} says "
                f"{written}, but the pieces of {MODEL_FILE} give {self.fingerprint}; make it again"
            )

    @property
    def vocabulary(self) -> int:
        """Number of word pieces, specials included."""
        return self._pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Returns word pieces of a text, without specials."""
        return self._pieces.encode(text)

    def decode(self, pieces: list[int]) -> str:
        """Returns the normalised text of word pieces; specials are left out."""
        return self._pieces.decode([int(piece) for piece in pieces])

    def piece(self, index: int | np.integer) -> str:
        """Returns a word piece as it is written; a leading underscore opens a word."""
        return self._pieces.id_to_piece(int(index)).replace(WORD_START, "_")

    def encode_row(self, text: str, length: int) -> Int[np.ndarray, " T"]:
        """CLS, the text's first pieces, SEP, then padding up to ``length``."""
        return row_of(self.encode(text)[: length - 2], length)

    @functools.cached_property
    def word_starts(self) -> Bool[np.ndarray, " V"]:
        """Per piece, whether it opens a word."""
        return np.array(
            [self._pieces.id_to_piece(i).startswith(WORD_START) for i in range(self.vocabulary)]
        )

    def __reduce__(self):
        """Loader processes open the folder themselves."""
        return TextTokenizer, (self.folder,)


def has_words(text: str) -> bool:
    """Returns whether a text has at least one letter, number or symbol."""
    return any(unicodedata.category(character)[0] in "LNS" for character in text)


def row_of(pieces: list[int], length: int) -> Int[np.ndarray, " T"]:
    """CLS, pieces, SEP and padding as one row; at most ``length - 2`` pieces."""
    row = np.full(length, Special.PAD, np.int32)
    row[: len(pieces) + 2] = [Special.CLS, *pieces, Special.SEP]
    return row


def piece_fingerprint(processor: sentencepiece.SentencePieceProcessor) -> str:
    """Returns twelve hexadecimal digits of the hash of all pieces in order.

    The model file also holds scores, which are floats and may vary.
    """
    pieces = "\n".join(processor.id_to_piece(i) for i in range(processor.get_piece_size()))
    return hashlib.sha256(pieces.encode()).hexdigest()[:12]


def packed_rows(documents: Iterable[list[int]], length: int) -> Iterator[Int[np.ndarray, " T"]]:
    """Yields rows of CLS, pieces, SEP; every piece of every document stands in exactly one row."""
    waiting: list[int] = []
    for pieces in documents:
        if waiting:
            waiting.append(Special.SEP)
        waiting += pieces
        start = 0
        while len(waiting) - start >= length - 2:
            yield row_of(waiting[start : start + length - 2], length)
            start += length - 2
        waiting = waiting[start:]
    if waiting:
        yield row_of(waiting, length)
