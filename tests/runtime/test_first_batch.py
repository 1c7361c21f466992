"""A new run draws its first rows before step 1, and nothing else changes."""

import dataclasses

import cv2
import jax
import numpy as np
import pytest

from examples.add_a_task import config
from vlbeit_jax import tasks
from vlbeit_jax.data.pieces import Fate, Piece
from vlbeit_jax.runtime.hooks.first_batch import FirstBatch
from vlbeit_jax.runtime.sheet import LINE, MARK, SIDE, sheet
from vlbeit_jax.runtime.start import train
from vlbeit_jax.runtime.writer import EVENTS, Writer
from vlbeit_jax.tasks.reading import GREY, Reading, Shown, Word


def run_of(steps, rows):
    found = config(steps)
    return dataclasses.replace(found, run=dataclasses.replace(found.run, first_batch=rows))


@pytest.fixture
def fit_line(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "fit_line", "examples.add_a_task:FitLine")


@pytest.mark.slow
def test_a_run_of_several_streams_has_a_picture_of_each(pretrained):
    """Its masks are grey, and the words to predict are marked."""
    for stream in ("image", "text", "pair"):
        picture = cv2.imread(str(pretrained / f"first_batch_{stream}.png"))[..., ::-1]
        grey, marked = (picture == GREY).all(axis=2).sum(), (picture == MARK).all(axis=2).sum()
        # Six of sixteen patches of eight rows are hidden.
        hidden = 8 * SIDE**2 * 6 / 16
        assert grey == pytest.approx(hidden if stream != "text" else 0, rel=0.1), stream
        assert (marked > 100) == (stream != "image"), stream
    events = b"".join(path.read_bytes() for path in (pretrained / EVENTS).iterdir())
    assert events.count(b"first_batch/") == 3


def test_it_changes_no_result_and_a_resumed_run_keeps_it(fit_line, tmp_path):
    without, drawn = tmp_path / "without", tmp_path / "drawn"
    states = [train(run_of(8, rows), folder) for rows, folder in ((0, without), (8, drawn))]
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, states))
    picture = drawn / "first_batch_points.png"
    assert not list(without.glob("*.png")) and picture.is_file()
    picture.write_bytes(b"of the start")
    train(run_of(12, 8), drawn)
    assert picture.read_bytes() == b"of the start"


class Rows:
    """Two rows: a picture whose right half is hidden, and one without masks."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = np.full((8, 8, 3), 200 + index, np.uint8)
        return {"image": image, "masked_patches": np.array([1, 3]), "weight": np.float32(1)}


def test_it_draws_before_the_first_step_only(tmp_path):
    writer = Writer(tmp_path, 0, 3)
    hook = FirstBatch(tmp_path, writer, {"image": Rows()}, {"image": Reading(grid=2)}, {"image": 2})
    hook.before_step(5)
    hook.before_step(0)
    assert not list(tmp_path.glob("*.png")), "a resumed run"
    hook = FirstBatch(tmp_path, writer, {"image": Rows()}, {"image": Reading(grid=2)}, {"image": 2})
    hook.before_step(0)
    picture = cv2.imread(str(tmp_path / "first_batch_image.png"))
    assert (picture == GREY).all(axis=2).sum() == pytest.approx(2 * SIDE**2 / 2, rel=0.02)
    writer.close()


def test_long_texts_are_wrapped_and_facts_are_below():
    word = Word(Piece("?", True), Piece("東京", True), Fate.HIDDEN)
    short, long = (sheet("t", [Shown({}, [word] * count, {"class": "a"})]) for count in (3, 300))
    assert long.shape[0] > 3 * short.shape[0] and long.shape[1] == short.shape[1]
    assert (long[:, -5:] == 255).all(), "over the edge"


def test_a_line_explains_the_signs_where_there_are_any():
    seen = Word(Piece("a", True))
    plain, masked = (
        sheet("t", [Shown({}, [word], {})])
        for word in (seen, Word(Piece("?", True), Piece("b", True), Fate.HIDDEN))
    )
    added = masked.shape[0] - plain.shape[0]
    assert added == LINE and (masked[LINE : 2 * LINE + 5] != 255).any(axis=2).sum() > 500
