"""Runs the project's own commands on one GPU and makes a table of what they measured.

tools/gpu_check.sh starts it.
"""

import argparse
import datetime
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from tools import gpu_table
from tools.gpu_runner import CURRENT, Check, end
from tools.gpu_stages import STAGES
from vlbeit_jax.runtime import machine


def main() -> int:
    """Runs the stages; returns 0 if all succeeded."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="new folder for the results")
    parser.add_argument(
        "--minutes", type=float, default=8, help="minutes after which the check ends"
    )
    parser.add_argument(
        "--only",
        default=",".join(STAGES),
        help=f"stages to run, in this order; default: {','.join(STAGES)}",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="run the same commands on the CPU, with tiny sizes"
    )
    given = parser.parse_args()
    unknown = [name for name in given.only.split(",") if name not in STAGES]
    if unknown:
        parser.error(f"--only: no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    card = machine.card()
    if not card and not given.rehearse:
        parser.error("nvidia-smi shows no GPU here; --rehearse runs the same commands on the CPU")
    try:
        given.out.mkdir(parents=True)
    except OSError as error:
        parser.error(f"{given.out}: {error.strerror}; name a new folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check = Check(
        given.out,
        time.monotonic() + 60 * given.minutes,
        given.rehearse,
        card.get("memory_gib", 8.0),
    )
    head = {
        "date": datetime.date.today().isoformat(),
        **card,
        **machine.versions(),
        "rehearsal": given.rehearse,
    }
    rows: list[dict[str, Any]] = []
    try:
        for name in given.only.split(","):
            for row in _timed(check, name):
                rows.append(row)
                gpu_table.write(given.out, head, rows)
                print(gpu_table.line(row), flush=True)
    finally:
        for process in CURRENT:
            end(process)
    return 1 if any("error" in row for row in rows) else 0


def _timed(check: Check, name: str) -> Iterator[dict[str, Any]]:
    if check.left() < 10:
        yield {"row": name.replace("_", " "), "error": "not run: time ended", "seconds": 0}
        return
    began = time.monotonic()
    for row in STAGES[name](check):
        yield {**row, "seconds": round(time.monotonic() - began)}
        began = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
