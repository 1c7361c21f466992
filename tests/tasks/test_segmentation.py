"""Segmentation: it learns, resumes, evaluates and predicts as it says."""

import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.make_data import build
from tests.tasks.finetuned import evaluated, opened
from tests.tasks.labelled_world import write
from tests.tasks.masked_world import CLASSES, MODEL, NEW, SIDE, prepare, segmentation_task
from tests.tasks.paired_world import config, start_in
from tests.test_toy_task import stops_after
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.masks import read_mask
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import Exit, UsageError
from vlbeit_jax.metrics.segmentation import pixels_of, summary
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.training.mesh import make_mesh, put_replicated
from vlbeit_jax.types import Kind

FAST = {"peak_lr": 5e-3}


@pytest.fixture(scope="module")
def masks(folder):
    return prepare(folder / "own")


@pytest.fixture(scope="module")
def start(folder):
    """Of another resolution: its positions are resized."""
    return str(start_in(folder, MODEL | {"image_size": SIDE // 2}))


def drawing(masks, start, norm="group"):
    """Four steps with everything that draws."""
    drawn = {
        "smallest_scale": 0.5,
        "largest_scale": 2.0,
        "one_class": 0.75,
        "flip": 0.5,
        "photometric": True,
    }
    task = segmentation_task(masks, drawn, norm=norm, dropout=0.1)
    settings = config(task, 4, checkpoint_every=2, start_from=start)
    return tiny.changed(settings, task={"model": {"drop_path": 0.3}})


@pytest.fixture(scope="module")
def whole(folder, masks, start):
    """The state of a short run, whose program all other tests of the normal suite share."""
    return jax.device_get(train(drawing(masks, start), folder / "run"))


@pytest.fixture(scope="module")
def trained(folder, whole):
    return folder / "run"


def predicted(run, records, top=3):
    return list(run.predict(records, top, make_mesh(MeshConfig())))


@pytest.mark.slow
def test_masks_of_new_pictures_are_nearly_perfect(folder, masks, start):
    """Also by windows over pictures of other sizes."""
    train(config(segmentation_task(masks), 140, FAST, start_from=start), folder / "learnt")
    assert evaluated(folder / "learnt", masks, "train")["metrics"]["miou"] > 0.93
    found = evaluated(folder / "learnt", masks, "test")["metrics"]
    assert found["miou"] > 0.85 and found["miou_majority"] < 0.3
    sets, run = prepare(folder / "large", seed=3, size=(40, 72)), opened(folder / "learnt")
    assert by_windows(run, masks, sets)[0]["metrics"]["miou"] > 0.7


@pytest.mark.slow
def test_permuted_masks_give_chance_on_new_pictures(folder, start):
    sets = prepare(folder / "permuted", seed=1, permute=True)
    task = segmentation_task(sets)
    train(config(task, 120, FAST, start_from=start), folder / "permuted" / "run")
    found = evaluated(folder / "permuted" / "run", sets, "test")["metrics"]
    assert found["miou"] < found["miou_majority"] + 0.15


def test_the_start_gives_the_backbone_and_its_positions_are_resized(trained):
    told = json.loads((trained / "start.json").read_text())
    assert "encoder/block_0/attention/qkv" in told["same"]
    assert [*told["adapted"]] == ["vision_embed/positions"]
    assert told["fresh"] and all(name.startswith("head/") for name in told["fresh"])


def test_evaluation_repeats_the_log_and_states_the_protocol(trained, masks):
    found = evaluated(trained, masks, "validation")
    line = next(line for line in tiny.metrics_of(trained) if line["split"] == "validation")
    metrics, protocol = found["metrics"], found["protocol"]
    for name in ("miou", "mean_accuracy", "pixel_accuracy", "miou_majority", "count"):
        assert line[f"segment/{name}"] == metrics[name]
    assert metrics["count"] == 4 == found["groups"]
    low, high = metrics["miou_interval"]
    assert low <= metrics["miou"] <= high
    assert [*found["by_class"]] == [*CLASSES]
    means = [each["iou"] for each in found["by_class"].values()]
    assert np.mean(means) == pytest.approx(metrics["miou"])
    assert sum(each["count"] for each in found["by_class"].values()) == 4 * SIDE**2
    assert protocol["view"] == "whole: the picture as a square"
    assert protocol["metric"].startswith("mean over classes of intersection over union")
    json.dumps(found)


def test_predictions_equal_the_evaluation_picture_by_picture(trained, masks):
    run = opened(trained)
    records = open_set(str(masks)).records("test")
    found = predicted(run, records)
    given = [mask_of(records[index]) for index in range(len(records))]
    metrics = evaluated(trained, masks, "test")["metrics"]
    ours = summary(pixels_of(given, [each["mask"] for each in found], len(CLASSES)))
    assert ours == {name: metrics[name] for name in ours}
    assert len(found) == NEW - 4
    for each in found:
        assert sum(share for _, share in each["classes"]) == pytest.approx(1)
    # New records have no masks, and do not depend on what else is in the batch.
    asked = [{name: records[index][name] for name in ("id", "image")} for index in (7, 3)]
    for alone, index in zip(predicted(run, asked), (7, 3), strict=True):
        np.testing.assert_array_equal(alone["mask"], found[index]["mask"])


def test_the_command_writes_indexed_masks_and_overlays(trained, masks, tmp_path):
    """A bad line has an error; the others are done, and the exit code is 1."""
    records = open_set(str(masks)).records("test")
    names = ["a/b é", "two"]
    lines = [{"id": name, "image": f"{i}.png"} for i, name in enumerate(names)]
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(records[number]["image"])
    path = write(tmp_path / "new.jsonl", [lines[0], {"id": "lost", "image": "lost.png"}, lines[1]])
    out = tmp_path / "found.jsonl"
    given = (f"--from={trained}", f"--input={path}")
    done = tiny.command("vlbeit_jax.predict", *given, f"--out={out}", "--top=2")
    assert done.returncode == Exit.BAD_DATA and "1 records have no prediction" in done.stderr, (
        done.stderr
    )
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["id"] for each in found] == ["a/b é", "lost", "two"]
    assert "new.jsonl:2: its image 'lost.png' cannot be read" in found[1]["error"]
    run = opened(trained)
    for number, line in ((0, found[0]), (1, found[2])):
        mask = predicted(run, [records[number]])[0]["mask"]
        file = (tmp_path / line["mask"]).read_bytes()
        np.testing.assert_array_equal(read_mask(file), mask)
        assert (tmp_path / line["overlay"]).is_file() and len(line["classes"]) <= 2
    assert found[0]["mask"] == "found/000000_a_b__mask.png"
    assert len([*(tmp_path / "found").iterdir()]) == 4


def by_windows(run, masks, sets):
    """Evaluation and the first prediction of a run by windows, whatever its own view is."""
    sliding = segmentation_task(masks, {"view": "slide"}, class_names=CLASSES).open()
    place = run.place(make_mesh(MeshConfig()))
    params, found = put_replicated(run.params, place.mesh), open_set(str(sets))
    first = next(sliding.predict(params, found.records("test"), 3, place))
    return sliding.evaluate(params, [found], "test", place), first["mask"]


def test_windows_give_masks_of_the_size_of_the_picture(trained, folder, masks):
    sets = prepare(folder / "wide", seed=2, size=(40, 72))
    found, mask = by_windows(opened(trained), masks, sets)
    assert found["protocol"]["view"].startswith("windows of 32, stride 21, logits averaged")
    assert sum(each["count"] for each in found["by_class"].values()) == (NEW - 4) * 40 * 72
    assert mask.shape == (40, 72) and mask.dtype == np.uint8


def resumed(settings, folder, monkeypatch):
    """The state after two steps, a stop and two steps."""
    with stops_after(2):
        assert int(train(settings, folder).step) == 2
    return jax.device_get(train(settings, folder))


def test_two_steps_a_kill_and_two_steps_are_four(whole, masks, start, tmp_path, monkeypatch):
    again = resumed(drawing(masks, start), tmp_path / "parts", monkeypatch)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert not jax.tree.leaves(again.model_state)


@pytest.mark.slow
def test_so_are_they_with_batchnorm(masks, start, tmp_path, monkeypatch):
    settings = drawing(masks, start, "batch")
    one = jax.device_get(train(settings, tmp_path / "whole"))
    again = resumed(settings, tmp_path / "parts", monkeypatch)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert jax.tree.leaves(again.model_state["image"])


@pytest.mark.slow
def test_with_batchnorm_evaluation_takes_the_running_statistics(masks, start, tmp_path):
    task = segmentation_task(masks, norm="batch")
    train(config(task, 120, FAST, start_from=start), tmp_path / "run")
    assert evaluated(tmp_path / "run", masks, "test")["metrics"]["miou"] > 0.8
    line = next(line for line in tiny.metrics_of(tmp_path / "run") if line["split"] == "validation")
    found = evaluated(tmp_path / "run", masks, "validation")["metrics"]
    assert line["segment/miou"] == found["miou"]


def test_a_set_with_other_classes_is_refused(trained, folder, masks):
    other = folder / "other"
    other.mkdir()
    names = other / "names.txt"
    prepare(other)
    names.write_text("ground\nblue\nred")
    build(
        other / "swapped",
        Kind.MASKS,
        [other / "masks.jsonl"],
        source_format="jsonl",
        classes=str(names),
    )
    with pytest.raises(UsageError, match="class 1 is 'blue' there and 'red' here"):
        evaluated(trained, other / "swapped", "test")


def test_bad_settings_are_refused_by_name():
    values = {
        "kind": "segmentation",
        "taps": (0, 1, 2, 12),
        "classes": 1,
        "norm": "layer",
        "image": {"smallest_scale": 3.0},
    }
    with pytest.raises(UsageError) as caught:
        parse({"task": values | {"norm": "group"}})
    for said in (
        "config.task.taps=(0, 1, 2, 12): must be 4 numbers from 0 to 11",
        "config.task.classes=1: must be at least 2, or 0",
        "config.task.image.largest_scale=2 must not be below smallest_scale=3",
    ):
        assert said in str(caught.value)
    with pytest.raises(UsageError, match="config.task.norm='layer': must be one of group, batch"):
        parse({"task": values})
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "segmentation", "norm": "batch"}, "optimizer": {"ema_decay": 0.9}})
    assert "config.task.image.sources is empty" in str(caught.value)
    assert "averaged parameters would be normalised by the statistics" in str(caught.value)
