"""Files for the evaluation servers of published benchmarks: what is asked, how answers are written.

A new one is one line in ``SUBMISSIONS``.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import IO, Any

from vlbeit_jax.prepare.formats import vqav2
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind


@dataclasses.dataclass(frozen=True)
class Submission:
    """A server's form: a JSON list with an entry for each record that is asked.

    Attributes:
      kind: of the sets that a run must have been trained on to answer.
      parts: what ``read`` takes, the default first.
      read: from the benchmark's folder and a part to its records.
      count: from the same to their number.
      entry: from a prediction, or a line with ``error``, to an entry.
    """

    kind: Kind
    parts: Collection[str]
    read: Callable[[pathlib.Path, str], Iterator[Item]]
    count: Callable[[pathlib.Path, str], int]
    entry: Callable[[Mapping[str, Any]], dict[str, Any]]


def _vqav2_entry(line: Mapping[str, Any]) -> dict[str, Any]:
    # The server takes no file in which a question is missing.
    return {"question_id": int(line["id"]), "answer": line.get("answer", "")}


SUBMISSIONS = {
    "vqav2": Submission(
        Kind.QUESTIONS,
        ("test", "test-dev", "validation", "train"),
        vqav2.read_questions,
        vqav2.count_questions,
        _vqav2_entry,
    )
}


def write_list(
    lines: Iterable[Mapping[str, Any]],
    entry: Callable[[Mapping[str, Any]], dict[str, Any]],
    out: IO[str],
) -> list[str]:
    """Writes a JSON list, an entry a line.

    Args:
      lines: predictions, some of which may have an ``error``.
      entry: of ``Submission``.
      out: file.

    Returns:
      The errors.
    """
    errors, before = [], "[\n"
    for line in lines:
        out.write(before + json.dumps(entry(line), ensure_ascii=False))
        before = ",\n"
        if "error" in line:
            errors.append(line["error"])
    out.write("\n]\n" if before == ",\n" else "[]\n")
    out.flush()
    return errors
