"""Records that cannot be used: what is wrong with one, and which examples got another instead."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2

from vlbeit_jax.errors import BadData

UNREADABLE = "unreadable"  # The file is damaged here, or gone.
TOO_LARGE = "image_too_large"  # More pixels than ``prepare`` allows, by its header.
NOT_AN_IMAGE = "undecodable_image"
NOT_A_MASK = "undecodable_mask"
BAD_TEXT = "bad_text"  # No UTF-8.
NO_CAPTION = "no_caption"


class BadRecord(BadData, ValueError):
    """A record that cannot be used.

    Attributes:
      reason: under which it is counted, one of those above.
    """

    def __init__(self, reason: str, message: str):
        """Takes the reason, and a message that names the record."""
        super().__init__(reason, message)  # Loader processes send it to the trainer.
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Replaced(NamedTuple):
    """An example that was made of another record than the one whose turn it was.

    Attributes:
      example: number of the example in its stream.
      reason: why its record cannot be used.
      message: names the record's file, its place in it and what is wrong.
    """

    example: int
    reason: str
    message: str


def reason_of(error: BadRecord | UnicodeDecodeError) -> str:
    """Returns the reason under which an error of making an example is counted."""
    return error.reason if isinstance(error, BadRecord) else BAD_TEXT


@contextlib.contextmanager
def decoding(reason: str, identity: str) -> Iterator[None]:
    """Turns errors of decoding into a ``BadRecord`` that names the record.

    Args:
      reason: under which it is counted.
      identity: of the record.
    """
    try:
        yield
    except (ValueError, cv2.error) as error:
        raise BadRecord(reason, f"record {identity!r}: {error}") from error


def refuse(replaced: Sequence[Replaced]) -> Any:
    """Raises a ``BadRecord`` for the first of some examples."""
    raise BadRecord(replaced[0].reason, replaced[0].message)
