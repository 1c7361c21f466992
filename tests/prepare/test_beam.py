"""Parts that Apache Beam writes are those of one process; workers that see nothing are told."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from tests.make_data import build, pair_members, write_tar
from tests.processes import TOP
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import beam
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.parts import read_part
from vlbeit_jax.types import Kind

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam is not installed: VENV=.venv-beam launch/install.sh beam",
)
PARTS = 4
# In a process of its own, so that Beam's warnings are not the tests'.
COMMAND = """
import pathlib, sys
from tests.make_data import build
from vlbeit_jax import progress
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.beam import engine
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.types import Kind
base.UNIT_TEXT = 1
progress.show()
out, *tars = sys.argv[1:]
direct = engine("DirectRunner", "--direct_running_mode=in_memory --direct_num_workers=1")
try:
    build(pathlib.Path(out), Kind.PAIRS, tars, engine=direct, validation_share=0.2)
except UsageError as error:
    sys.exit(f"UsageError: {error}")
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(base, "UNIT_TEXT", 1)


@pytest.fixture
def tars(tmp_path):
    """Files that are read as one part each; some captions occur in several."""
    return [write_tar(tmp_path / f"{n}.tar", pair_members(20, 15 * n)) for n in range(PARTS)]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def by_beam(out, tars):
    command = [sys.executable, "-c", COMMAND, str(out), *map(str, tars)]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)


@needs_beam
def test_the_direct_runner_gives_the_bytes_of_one_process(tmp_path, tars):
    build(tmp_path / "one", Kind.PAIRS, tars, validation_share=0.2)
    done = by_beam(tmp_path / "beam", tars)
    assert done.returncode == 0, done.stderr
    assert f"DirectRunner writes {PARTS} of {PARTS} parts" in done.stderr
    assert contents(tmp_path / "beam") == contents(tmp_path / "one")
    assert not (tmp_path / "beam.work").exists()


@needs_beam
def test_beam_goes_on_with_parts_that_are_finished_already(tmp_path, tars):
    build(tmp_path / "one", Kind.PAIRS, tars, validation_share=0.2)
    build(tmp_path / "beam", Kind.PAIRS, tars, validation_share=0.2, part_range=(1, 3))
    done = by_beam(tmp_path / "beam", tars)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 parts are finished already" in done.stderr
    assert "DirectRunner writes 2 of 4 parts" in done.stderr
    assert contents(tmp_path / "beam") == contents(tmp_path / "one")


@needs_beam
def test_a_damaged_file_is_named_and_the_other_parts_stay(tmp_path, tars):
    sound = tars[2].read_bytes()
    tars[2].write_bytes(sound[: len(sound) // 2 + 100])
    failed = by_beam(tmp_path / "beam", tars)
    assert f"UsageError: {tars[2]}: cannot be read as a tar" in failed.stderr, failed.stderr
    assert f"3 of {PARTS} parts are finished and stay" in failed.stderr
    tars[2].write_bytes(sound)
    assert by_beam(tmp_path / "beam", tars).returncode == 0
    build(tmp_path / "one", Kind.PAIRS, tars, validation_share=0.2)
    assert contents(tmp_path / "beam") == contents(tmp_path / "one")


@needs_beam
def test_what_a_worker_says_of_its_folder_reaches_the_user(tmp_path, tars):
    """Beam adds to the error where it was raised."""
    blind = (
        "import vlbeit_jax.prepare.beam\nvlbeit_jax.prepare.beam._appears = lambda found: False\n"
    )
    command = [sys.executable, "-c", blind + COMMAND, str(tmp_path / "beam"), *map(str, tars)]
    failed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("UsageError: worker ") and "does not see" in last, failed.stderr
    assert last.endswith(beam.SHARED)


@needs_beam
@pytest.mark.skipif(
    importlib.util.find_spec("apitools") is not None, reason="the libraries for Dataflow are here"
)
def test_dataflow_without_its_libraries_is_refused_with_their_name(tmp_path, tars):
    options = "--project=my-project --region=us-central1"
    options += " --temp_location=gs://my-bucket/t --staging_location=gs://my-bucket/s"
    other = COMMAND.replace('"DirectRunner", "', f'"DataflowRunner", "{options} ')
    command = [sys.executable, "-c", other, str(tmp_path / "beam"), *map(str, tars)]
    failed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("UsageError: --runner=DataflowRunner") and "apache_beam[gcp]" in last


@needs_beam
def test_a_runner_that_beam_does_not_know_is_refused_with_those_it_knows(tmp_path, tars):
    wrong = COMMAND.replace('"DirectRunner"', '"Dataflow2Runner"')
    command = [sys.executable, "-c", wrong, str(tmp_path / "beam"), *map(str, tars)]
    failed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("UsageError: --runner=Dataflow2Runner") and "FlinkRunner" in last
    assert not (tmp_path / "beam.work").exists()


class Here(beam.Beam):
    """Calls workers in this process, one after the other, without Beam."""

    def _run(self, numbers, folder, token):
        for number in numbers:
            beam.write_on_worker(number, folder, token)


class Elsewhere(beam.Beam):
    """Its workers write to folders of their own."""

    def _run(self, numbers, folder, token):
        pass


@pytest.fixture
def without_beam(monkeypatch):
    monkeypatch.setattr(beam, "_count", lambda items, dropped, reading="": None)
    monkeypatch.setattr(beam, "PATIENCE", 0.0)


def test_workers_make_the_same_parts(tmp_path, tars, without_beam):
    build(tmp_path / "one", Kind.PAIRS, tars, validation_share=0.2)
    build(tmp_path / "set", Kind.PAIRS, tars, validation_share=0.2, engine=Here("here"))
    assert contents(tmp_path / "set") == contents(tmp_path / "one")


def test_a_part_that_is_asked_for_twice_is_written_once(tmp_path, tars, without_beam):
    folder = tmp_path / "set.work"

    class Twice(Here):
        def _run(self, numbers, folder, token):
            super()._run([*numbers, *numbers], folder, token)

    with pytest.raises(BadInput):  # So that parts stay.
        write_tar(tars[3], pair_members(20))
        tars[3].write_bytes(tars[3].read_bytes()[:3000])
        build(tmp_path / "set", Kind.PAIRS, tars, engine=Twice("twice"))
    before = {path: path.stat().st_ino for path in (folder / "parts").iterdir()}
    assert sum(read_part(folder / "parts", n) is not None for n in range(PARTS)) == 3
    with pytest.raises(BadInput):
        build(tmp_path / "set", Kind.PAIRS, tars, engine=Twice("twice"))
    assert {path: path.stat().st_ino for path in (folder / "parts").iterdir()} == before


def test_wrong_lines_of_all_parts_are_named(tmp_path, without_beam):
    """As the pool does it; a worker's error comes back as it was raised."""
    lines = [{"id": f"{n}", "text": "a", "label": "b"} for n in range(3)]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("".join(json.dumps(line | {"image": "none.png"}) + "\n" for line in lines))
    said = []
    for engine in (None, Here("here")):
        with pytest.raises(UsageError) as failed:
            build(
                tmp_path / f"{len(said)}",
                Kind.LABELLED_IMAGES,
                [wrong],
                source_format="jsonl",
                engine=engine,
            )
        said.append(str(failed.value))
    assert said[0] == said[1] and said[0].count("none.png") == 3


def test_parts_that_are_written_elsewhere_are_missed(tmp_path, tars, without_beam):
    with pytest.raises(UsageError, match="has none. Beam's workers need --input and --out on"):
        build(tmp_path / "set", Kind.PAIRS, tars, engine=Elsewhere("elsewhere"))


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path, without_beam):
    with pytest.raises(UsageError, match=rf"worker .* does not see {tmp_path}"):
        beam.write_on_worker(0, str(tmp_path), "token")


def test_an_input_that_workers_do_not_see_is_not_skipped(tmp_path, tars, without_beam):
    """Though --bad_inputs=skip leaves out files that cannot be read."""

    class Apart(Here):
        def _run(self, numbers, folder, token):
            tars[1].rename(tars[1].with_suffix(".elsewhere"))
            super()._run(numbers, folder, token)

    with pytest.raises(UsageError, match=rf"does not see {tars[1]} as it was planned"):
        build(tmp_path / "set", Kind.PAIRS, tars, bad_inputs="skip", engine=Apart("apart"))


def test_relative_paths_are_refused(tmp_path, tars, without_beam):
    relative = [pathlib.Path(os.path.relpath(path)) for path in tars]
    with pytest.raises(
        UsageError, match=f"relative path.* give the absolute path, .*{tars[0].name}"
    ):
        build(tmp_path / "set", Kind.PAIRS, relative, engine=Here("here"))


def test_what_a_pipeline_says_of_its_worker_is_found():
    text = "RuntimeError: Traceback\nvlbeit_jax.errors.UsageError: no. Do this [while running 'W']"
    found = beam.QUOTED.search(text)
    assert found and found[1] == "no. Do this"
    assert not beam.QUOTED.search("OSError: UsageErrors")


def test_without_beam_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(beam.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"VENV=\.venv-beam launch/install\.sh beam"):
        beam.engine("DataflowRunner", "")
    assert beam.engine("", "") is None
    with pytest.raises(UsageError, match="needs --runner"):
        beam.engine("", "--project=p")
    monkeypatch.setattr(beam.importlib.util, "find_spec", lambda name: types.ModuleType(name))
    assert beam.engine("DirectRunner", "--a=b --c='d e'") == beam.Beam(
        "DirectRunner", ("--a=b", "--c=d e")
    )
