"""What each set has contributed to a stream: a function of the number of rows alone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Contribution(NamedTuple):
    """The part of one set in the rows of a stream.

    Attributes:
      name: of the set, short and different from those of the stream's other sets.
      rows: that it has given so far.
      records: that it holds; each one is given once per epoch.
    """

    name: str
    rows: int
    records: int

    @property
    def epochs(self) -> float:
        """How often the set has given each of its records, on average."""
        return self.rows / self.records


@runtime_checkable
class Mixed(Protocol):
    """Examples that come from sets."""

    def contributions(self, rows: int) -> list[Contribution]:
        """Returns what each set gave of the first ``rows`` examples."""
        ...


def short_names(names: Sequence[str]) -> list[str]:
    """Returns the last parts of paths, as many as are needed to tell them apart."""
    parts = [name.rstrip("/").split("/") for name in names]
    for count in range(1, max((len(each) for each in parts), default=0) + 1):
        shortened = ["/".join(each[-count:]) for each in parts]
        if len(set(shortened)) == len(shortened):
            return shortened
    return list(names)
