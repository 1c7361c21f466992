"""Inputs at which a library ended a worker, and which are left out of their part since then.

A note beside the parts keeps them for a command that is run again. It is about one state of the
inputs: if a file changes, it is read again.
"""

import json
import pathlib

from vlbeit_jax.prepare.parts import whole
from vlbeit_jax.prepare.work_plan import WorkPlan

CRASHED_FOLDER = "crashed"


def crashed(plan: WorkPlan, number: int) -> dict[str, str]:
    """Returns the inputs of a part that are left out, with reasons."""
    path = _file(plan, number)
    if not plan.skips_bad_inputs or not path.is_file():
        return {}
    told = json.loads(path.read_text())
    return told["inputs"] if told["asked"] == plan.asked(number) else {}


def note_crash(plan: WorkPlan, number: int, path: str, why: str) -> None:
    """Leaves an input out of a part."""
    _file(plan, number).parent.mkdir(exist_ok=True)
    told = {"asked": plan.asked(number), "inputs": {**crashed(plan, number), path: why}}
    with whole(_file(plan, number)) as file:
        file.write_text(json.dumps(told))


def _file(plan: WorkPlan, number: int) -> pathlib.Path:
    return plan.folder / CRASHED_FOLDER / f"{number:05d}.json"
