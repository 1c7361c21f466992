"""A full disk: one message, finished parts stay, and the work goes on when there is room."""

import subprocess
import sys

from tests.make_data import build, encoded, picture, write_tar
from tests.processes import TOP
from vlbeit_jax.errors import Exit
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.types import Kind

# Files of more than so many bytes cannot be written. ArrayRecord writes blocks of 64 KiB.
ROOM = 400_000
COMMAND = """
import pathlib, resource, sys
from tests.make_data import build
from vlbeit_jax.errors import StorageError
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.types import Kind
base.UNIT_TEXT = 1
out, room, *tars = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
try:
    build(pathlib.Path(out), Kind.PAIRS, tars)
except StorageError as error:
    print(error)
    sys.exit(error.code)
"""


def tars(folder):
    """One small file and one whose records need more than there is room for."""
    found = []
    for number, side in enumerate((32, 300)):
        members = [
            (f"{i}.{suffix}", content)
            for i in range(10 * number, 10 * number + 10)
            for suffix, content in (
                ("bmp", encoded(picture(i, side, side), "BMP")),
                ("txt", f"caption {i}".encode()),
            )
        ]
        found.append(write_tar(folder / f"{number}.tar", members))
    return found


def run(out, room, files):
    command = [sys.executable, "-c", COMMAND, str(out), str(room), *map(str, files)]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True)


def test_finished_parts_stay_and_the_same_command_goes_on(tmp_path, monkeypatch):
    files, out = tars(tmp_path), tmp_path / "set"
    ended = run(out, ROOM, files)
    assert ended.returncode == Exit.STORAGE, ended.stderr
    assert "File too large. 1 of 2 parts are finished and stay in" in ended.stdout
    assert "Make room, and run the same command again" in ended.stdout
    left = {path.name for path in (tmp_path / "set.work" / "parts").iterdir()}
    assert "00000.json" in left and not out.exists()
    assert not any(name.startswith("00001") or name.endswith(".tmp") for name in left)
    ended = run(out, 10**9, files)
    assert ended.returncode == 0, ended.stdout
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    build(tmp_path / "wanted", Kind.PAIRS, files)
    for path in (tmp_path / "wanted").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "set.work").exists()


def test_nothing_is_left_if_no_part_was_finished(tmp_path):
    files = tars(tmp_path)[1:]
    ended = run(tmp_path / "set", ROOM, files)
    assert ended.returncode == Exit.STORAGE and "File too large" in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "1.tar"]
