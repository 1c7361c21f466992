"""Damaged inputs are refused or read, but never end in a traceback."""

import json
import pickle
import random
import shutil

import pytest

from tests.prepare.formats.conftest import GOLDEN
from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.formats.detect import recognise
from vlbeit_jax.types import Kind

EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
# Bytes that change in HDF5 can crash its library, and Croissant needs one that may be missing.
INPUTS = [name for name in EXPECTED if name not in ("hdf5", "croissant")]


def damaged(content, draw):
    """Bytes that are cut off, or changed, or have others between them."""
    found = bytearray(content)
    place = draw.randrange(len(found))
    how = draw.randrange(3)
    if how == 0:
        return bytes(found[:place])
    if how == 1:
        for _ in range(draw.randint(1, 8)):
            found[draw.randrange(len(found))] = draw.randrange(256)
        return bytes(found)
    found[place:place] = draw.randbytes(draw.randint(1, 20))
    return bytes(found)


@pytest.mark.parametrize("name", INPUTS)
def test_damage_of_any_input_is_a_usage_error_at_most(golden, tmp_path, name):
    wanted, draw = EXPECTED[name], random.Random(name)
    top, _, below = wanted["input"].partition("/")
    outcomes = []
    for number in range(6):
        shutil.copytree(golden / top, tmp_path / str(number))
        path = tmp_path / str(number) / below
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        file = draw.choice(sorted(file for file in files if file.stat().st_size))
        file.write_bytes(damaged(file.read_bytes(), draw))
        for form in ("auto", wanted["format"]):
            try:
                kind = Kind(wanted["kind"])
                found = recognise(form, [path], kind, force=form != "auto")
                Reading(found, path, kind=kind)
                outcomes.append("read")
            except UsageError:
                outcomes.append("refused")
    assert len(outcomes) == 12


def test_a_worker_can_send_what_is_wrong_with_a_file():
    error = pickle.loads(pickle.dumps(BadInput("a.tar", "is cut off")))
    assert (error.path, error.why, str(error)) == ("a.tar", "is cut off", "a.tar: is cut off")
