"""Parts of a document that a command makes, between two comments that name them."""

from collections.abc import Sequence

from vlbeit_jax.errors import UsageError


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """Returns a document with other lines in one part.

    Args:
      text: the document, with ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` once each.
      name: of the part.
      lines: the new ones.

    Raises:
      UsageError: the document has no such part.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UsageError(f"the page has no part {name}: it must stand between {begin}and {end}")
    return "".join([before, begin, "\n", "\n".join(lines), "\n\n", end, after])
