"""A set that is prepared into a bucket has the bytes of one on a disk, wherever it was cut off."""

import threading

import pytest

from tests.make_data import build, pair_members, write_tar
from vlbeit_jax import folders
from vlbeit_jax.buckets import lease, publish
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import beam, final, finish, parts, work
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.types import Kind

PARTS = 3


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Each file is a part; what takes a minute in earnest is quick."""
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    monkeypatch.setattr(lease, "LOOKED_EVERY", 0.05)
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.1)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Files that are read as one part each; some pictures and captions occur in several."""
    made = tmp_path_factory.mktemp("tars")
    return [write_tar(made / f"{n}.tar", pair_members(40, 30 * n)) for n in range(PARTS)]


@pytest.fixture(scope="module")
def wanted(tars, tmp_path_factory):
    """What one process makes of them on a disk."""
    out = tmp_path_factory.mktemp("wanted") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "UNIT_TEXT", 1)
        build(out, Kind.PAIRS, tars, validation_share=0.2)
    return contents(out)


def contents(made):
    return {path.name: path.read_bytes() for path in sorted(made.iterdir())}


def names(place):
    return [path.name for path in place.iterdir()]


@pytest.mark.parametrize(
    "options",
    [{"deduplicate": True}, {"shards": PARTS}, {}],
    ids=["records_joined", "parts_become_shards", "captions_left_out"],
)
def test_the_bytes_are_those_on_a_disk(folder, tars, tmp_path, options, monkeypatch):
    links = []
    monkeypatch.setattr(
        final, "second_name", lambda *given: links.append(given) or second_name(*given)
    )
    for out in (folder / "set", tmp_path / "set"):
        build(out, Kind.PAIRS, tars, validation_share=0.2, **options)
    assert contents(folder / "set") == contents(tmp_path / "set")
    assert names(folder) == ["set"]  # No claim, no mark, no parts.
    assert bool(links) == ("shards" in options)
    assert open_set(str(folder / "set")).count("train")


second_name = final.second_name


class Died(BaseException):
    """What a process does that is killed, as far as objects are concerned."""


@pytest.mark.parametrize(
    ("point", "last"),
    [
        (5, "publish"),
        (12, "publish"),
        (16, "make_shard"),
        (18, "_done"),
        (19, "publish"),
        (20, "_upload"),
        (21, "remove_tree"),
    ],
)
def test_wherever_it_dies_the_next_start_completes_it(
    folder, tars, wanted, monkeypatch, point, last
):
    """Each part, shard and file at the end is a point to die at."""
    events, out = [], folder / "set"

    def dying(function):
        def call(*args, **kwargs):
            events.append(function.__name__)
            if len(events) >= point:
                raise Died
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module, name in (
            (parts, "publish"),
            (work, "make_shard"),
            (finish, "describe_set"),
            (finish, "_done"),
            (publish, "_upload"),
            (finish, "remove_tree"),
        ):
            patch.setattr(module, name, dying(getattr(module, name)))
        # A process that is killed tidies nothing.
        patch.setattr(type(folder), "unlink", lambda *args, **kwargs: None)
        patch.setattr(type(folder), "rmtree", lambda *args: None)
        with pytest.raises(Died):
            build(out, Kind.PAIRS, tars, validation_share=0.2)
    before = finished(folder)
    assert events[-1] == last
    assert (out / "vlbeit_meta.json").exists() == (last == "remove_tree")
    monkeypatch.setattr(
        work, "write_part", lambda plan, number, report: again.append(number) or write(plan, number)
    )
    again: list[int] = []
    build(out, Kind.PAIRS, tars, validation_share=0.2)
    assert contents(out) == wanted and names(folder) == ["set"]
    assert {*again} == {*range(PARTS)} - {*before}


write = work.write_part


def finished(folder):
    return [int(path.stem) for path in (folder / "set.work" / "parts").glob("*.json")]


def test_a_second_command_is_refused(folder, tars):
    out = folder / "set"
    with folders.locked(out):
        for part_range in (None, (0, 1)):
            with pytest.raises(UsageError, match="set is being written by process"):
                build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=part_range)
    assert names(folder) == []
    (out / "mine").write_text("")
    with pytest.raises(UsageError, match="exists already"):
        build(out, Kind.PAIRS, tars, validation_share=0.2)
    assert names(out) == ["mine"]


def test_workers_of_beam_write_parts_into_the_bucket(folder, tars, wanted, monkeypatch):
    """They get the numbers of parts and the address of the work, and nothing else."""

    def run(self, numbers, work, token):
        assert work == f"{folder}/set.work"
        for number in numbers:
            assert beam.write_on_worker(number, work, token) == number

    monkeypatch.setattr(beam.Beam, "_run", run)
    monkeypatch.setattr(beam, "_count", lambda *given: None)
    monkeypatch.setattr(beam, "PATIENCE", 0)
    build(folder / "set", Kind.PAIRS, tars, validation_share=0.2, engine=beam.Beam("Other"))
    assert contents(folder / "set") == wanted and names(folder) == ["set"]


def test_another_plan_says_what_to_remove(folder, tars):
    out = folder / "set"
    build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=(0, 1))
    with pytest.raises(UsageError, match="gcloud storage rm --recursive gs://tests/.*set.work"):
        build(out, Kind.PAIRS, tars, validation_share=0.3, part_range=(0, 1))


def test_several_machines_share_the_parts(folder, tars, wanted):
    out, inside = folder / "set", threading.Barrier(2, timeout=60)

    def with_others():
        with folders.locked(out, shared=True):
            inside.wait()
            inside.wait()

    other = threading.Thread(target=with_others)
    other.start()
    inside.wait()
    assert not build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=(0, 2))
    with pytest.raises(UsageError, match="set is being written by process"):
        build(out, Kind.PAIRS, tars, validation_share=0.2)  # It needs the set for itself.
    inside.wait()
    other.join()
    assert not out.exists()
    assert build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=(2, 3))
    assert contents(out) == wanted and names(folder) == ["set"]
