"""Joins the parts of the transfer study into one file, and prints a table.

    python -m tools.transfer.join OUT PART...

Each PART holds ``results`` by task and their ``protocol``. OUT gets the results of all parts.
"""

import json
import pathlib
from typing import Any

from tools import command
from tools.transfer.results import table
from vlbeit_jax.errors import UsageError


def join(parts: list[pathlib.Path]) -> dict[str, Any]:
    """Returns the results of all parts by task.

    Raises:
      UsageError: two parts have results of the same task.
    """
    found: dict[str, Any] = {}
    for part in parts:
        results = json.loads(part.read_text())["results"]
        if twice := found.keys() & results.keys():
            raise UsageError(
                f"{part} has results of {min(twice)}, and so has another PART; give one of them"
            )
        found |= results
    return found


def main(arguments: list[str]) -> None:
    """Writes OUT and prints a table."""
    if len(arguments) < 2:
        raise UsageError("usage: python -m tools.transfer.join OUT PART...")
    out, *parts = map(pathlib.Path, arguments)
    found = join(parts)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{table(found)}\nwritten to {out}")


if __name__ == "__main__":
    command.run(main, __doc__)
