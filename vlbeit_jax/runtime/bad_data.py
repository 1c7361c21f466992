"""Records that cannot be read: one message that names the stream and the step."""

import contextlib
from collections.abc import Iterator

from vlbeit_jax.data.bad_records import BadRecord
from vlbeit_jax.errors import BadData
from vlbeit_jax.storage import unmasked


class TooManyBadRecords(BadData):
    """Too many training records cannot be used. Every process raises it at the same step."""


@contextlib.contextmanager
def explains_records(stream: str, step: int) -> Iterator[None]:
    """Turns errors of reading records into one that names the stream and the step.

    Any other error is a defect of the program, and keeps its traceback.

    Args:
      stream: that reads them.
      step: number of the step, from 1.

    Raises:
      BadData: they cannot be read.
      StorageError: the same, because the disk fails.
    """
    try:
        yield
    except (BadRecord, UnicodeDecodeError, OSError) as error:
        said = str(error).strip() or repr(error)
        bad = BadData(f"stream {stream}, step {step}: its records cannot be read: {said}")
        bad.__cause__ = error
        raise unmasked(bad) from error
