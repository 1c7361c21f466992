"""Records that cannot be read: one message that names the stream and the step."""

import contextlib
from collections.abc import Iterator

from vlbeit_jax.data.bad_records import BadRecord
from vlbeit_jax.errors import BadData


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
    """
    try:
        yield
    except (BadRecord, UnicodeDecodeError, OSError) as error:
        said = str(error).strip() or repr(error)
        raise BadData(
            f"stream {stream}, step {step}: its records cannot be read: {said}"
        ) from error
