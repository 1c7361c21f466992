"""Classification of images and texts: it learns, resumes, evaluates and predicts as it says."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.make_data import build, encoded, picture
from tests.tasks.finetuned import evaluated, in_one_go_and_in_two, opened
from tests.tasks.labelled_world import (
    NAMES,
    NEW,
    image_config,
    prepare,
    rows,
    text_config,
    tokenizer_in,
    write,
)
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import Exit, UsageError
from vlbeit_jax.prepare.formats import jsonl
from vlbeit_jax.prepare.requests import prediction_lines
from vlbeit_jax.runtime.start import train
from vlbeit_jax.runtime.synthetic import random_batches
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.mesh import make_mesh, put_replicated
from vlbeit_jax.types import Kind


@pytest.fixture(scope="module")
def pictures(folder):
    return prepare(folder, "pictures", Kind.LABELLED_IMAGES)


@pytest.fixture(scope="module")
def trained(folder, pictures):
    """A finished run with an average, evaluated on its way."""
    train(image_config(pictures, optimizer={"ema_decay": 0.9}), folder / "run")
    return folder / "run"


def accuracy(folder, sets, split, weights="raw"):
    return evaluated(folder, sets, split, weights)["metrics"]["accuracy"]


def test_pictures_that_can_be_told_apart_are(trained, pictures):
    assert accuracy(trained, pictures, "train") >= 62 / 64
    assert accuracy(trained, pictures, "test") > 0.9  # New ones too.


@pytest.mark.slow
def test_permuted_labels_give_chance_on_new_pictures(folder):
    sets = prepare(folder / "permuted", "pictures", Kind.LABELLED_IMAGES, seed=1, permute=True)
    train(image_config(sets, steps=40), folder / "permuted" / "run")
    assert abs(accuracy(folder / "permuted" / "run", sets, "test") - 1 / len(NAMES)) < 0.2


def test_texts_that_can_be_told_apart_are(folder):
    sets = prepare(folder / "texts", "texts", Kind.LABELLED_TEXTS)
    tokenizer = tokenizer_in(folder / "texts")
    run = folder / "texts" / "run"
    train(text_config(sets, tokenizer), run)
    assert accuracy(run, sets, "train") >= 62 / 64 and accuracy(run, sets, "test") > 0.9
    lines = write(folder / "texts" / "new.jsonl", rows(folder / "texts")[-3:] + [{"id": "none"}])
    found = list(predicted(run, lines))
    assert [line["id"] for line in found] == ["0/125", "0/126", "0/127", "none"]
    assert [line.get("label") for line in found[:3]] == [NAMES[i % 4] for i in (125, 126, 127)]
    assert "no 'text'" in found[3]["error"]


def predicted(folder, path, top=5):
    run, mesh = opened(folder), make_mesh(MeshConfig())
    return prediction_lines(
        jsonl.read_lines([path]),
        lambda records: run.predict(records, top, mesh),
        run.opened.needs,
    )


def test_training_logs_both_weights_and_evaluation_repeats_the_log(trained, pictures):
    lines = {line["split"]: line for line in tiny.metrics_of(trained)}
    assert {"train", "validation", "validation_ema"} <= lines.keys()
    assert lines["train"]["class/chance"] == 1 / 4
    for split, weights in (("validation", "raw"), ("validation_ema", "ema")):
        logged = lines[split]["class/accuracy"]
        assert accuracy(trained, pictures, "validation", weights) == logged
        assert lines[split]["class/count"] == NEW // 4
    assert lines["validation"]["class/loss"] != lines["validation_ema"]["class/loss"]


def test_results_hold_the_whole_protocol(trained, pictures):
    found = evaluated(trained, pictures, "")
    json.dumps(found)
    protocol = found["protocol"]
    assert protocol["split"] == "test" and protocol["weights"] == "raw" and protocol["step"] == 60
    assert protocol["image_size"] == 32 and protocol["view"] == "crop"
    assert protocol["task"] == "image_classification" and "more likely" in protocol["ties"]
    assert len(protocol["weights_fingerprint"]) == 12 and found["start"] is None
    low, high = found["metrics"]["accuracy_interval"]
    assert low <= found["metrics"]["accuracy"] <= high
    assert found["metrics"]["count"] == found["groups"] == 3 * NEW // 4
    assert found["by_class"].keys() == set(NAMES)
    (data,) = found["data"]
    assert data["records"] == 48 and data["fingerprint"] == open_set(str(pictures)).fingerprint
    averaged = evaluated(trained, pictures, "", "ema")
    assert averaged["protocol"]["weights_fingerprint"] != protocol["weights_fingerprint"]


def test_predictions_equal_the_evaluation_row_by_row(trained, pictures, folder):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    lines = rows(folder)
    # Any order, any batch.
    asked = write(folder / "asked.jsonl", [lines[i] for i in range(127, 79, -1)])
    by_id = {line["id"]: line for line in predicted(trained, asked)}
    records = open_set(str(pictures)).records("test")
    params = put_replicated(run.params, mesh)
    found = run.opened._rows(params, records, run.place(mesh)).outputs
    for index, logits in enumerate(found):
        odds = np.exp(logits - logits.max())
        line = by_id[records[index]["id"].decode()]
        order = np.argsort(-odds)
        assert line["label"] == NAMES[order[0]] == line["top"][0][0]
        assert [name for name, _ in line["top"]] == [NAMES[i] for i in order]
        shares = [share for _, share in line["top"]]
        np.testing.assert_allclose(shares, (odds / odds.sum())[order], rtol=1e-4, atol=1e-6)
    assert len(found) == 48 == len(by_id)


def test_a_bad_row_is_an_error_and_the_others_are_done(trained, folder):
    (folder / "broken.png").write_bytes(encoded(picture(0))[:40])
    good = rows(folder)[0]
    asked = [
        good,
        "{",
        {"id": "gone", "image": "gone.png"},
        good | {"id": "b", "image": "broken.png"},
        good,
        good | {"id": "again"},
    ]
    path = folder / "bad.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in asked))
    out = folder / "out.jsonl"
    done = tiny.command(
        "vlbeit_jax.predict", f"--from={trained}", f"--input={path}", f"--out={out}", "--top=2"
    )
    assert done.returncode == Exit.BAD_DATA and "4 records have no prediction" in done.stderr, (
        done.stderr
    )
    found = [json.loads(line) for line in out.read_text().splitlines()]
    wanted = (None, "bad.jsonl:2: .* JSON", "'gone.png' cannot be read", "damaged|not a file")
    for line, error in zip(found, (*wanted, "id '0/0' is also that of", None), strict=True):
        assert ("error" in line) == (error is not None)
    assert found[0]["label"] == found[5]["label"] == good["label"] and len(found[0]["top"]) == 2
    assert "also that of" in found[4]["error"] and "gone.png" in found[2]["error"]
    assert not list(folder.glob(".*unfinished"))
    before = path.read_text()
    done = tiny.command(
        "vlbeit_jax.predict", f"--from={trained}", f"--input={path}", f"--out={path}"
    )
    assert done.returncode == 2 and "is the --input" in done.stderr and path.read_text() == before


def test_the_evaluate_command_writes_the_file(trained, pictures, folder):
    out = folder / "results.json"
    done = tiny.command(
        "vlbeit_jax.evaluate", f"--from={trained}", f"--data={pictures}", f"--json={out}"
    )
    assert done.returncode == 0, done.stderr
    assert "image_classification, test, raw weights" in done.stdout
    found = json.loads(out.read_text())
    printed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:-1])
    assert printed["accuracy"] == f"{found['metrics']['accuracy']:.6g}"


def test_two_steps_a_kill_and_two_steps_are_four(pictures, tmp_path):
    """With everything that draws: crops, RandAugment, erasing, mixup, cutmix, drop path."""
    config = image_config(
        pictures,
        steps=4,
        optimizer={"ema_decay": 0.9, "layer_decay": 0.65, "head_factor": 2.0},
        run={"checkpoint_every": 2, "evaluate_every": 0},
        batch_size=16,
        rand_augment="strong",
        erase=0.5,
        mixup=0.8,
        cutmix=1.0,
    )
    config = tiny.changed(config, task={"smoothing": 0.1, "model": {"drop_path": 0.3}})
    whole, again = in_one_go_and_in_two(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, again)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": 3}, "has 4 classes, but task.classes=3; set task.classes to 0"),
        ({"classes": 1000}, "has 4 classes, but task.classes=1000"),
    ],
)
def test_another_number_of_classes_is_refused(pictures, tmp_path, changed, said):
    config = tiny.changed(image_config(pictures), task=changed)
    with pytest.raises(UsageError, match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_fit_are_refused_before_anything_is_compiled(
    trained, pictures, folder, tmp_path
):
    lines = [{**line, "label": "mauve"} if i == 3 else line for i, line in enumerate(rows(folder))]
    build(
        tmp_path / "o",
        Kind.LABELLED_IMAGES,
        [write(folder / "o.jsonl", lines)],
        source_format="jsonl",
    )
    mesh = make_mesh(MeshConfig())
    with pytest.raises(UsageError, match="classes that the model does not know: 'mauve'; it knows"):
        opened(trained).evaluate([str(tmp_path / "o")], "train", mesh)
    config = image_config(pictures)
    both = dataclasses.replace(config.task.image, sources=(str(pictures), str(tmp_path / "o")))
    with pytest.raises(UsageError, match="does not know: 'mauve'"):
        train(tiny.changed(config, task={"image": both}), tmp_path / "run")

    only = [{**line, "split": "train"} for line in rows(folder)]
    build(
        tmp_path / "t",
        Kind.LABELLED_IMAGES,
        [write(folder / "t.jsonl", only)],
        source_format="jsonl",
    )
    with pytest.raises(UsageError, match="no 'validation' records"):
        opened(trained).evaluate([str(tmp_path / "t")], "", mesh)
    with pytest.raises(UsageError, match="holds no validation records"):
        train(image_config(tmp_path / "t"), tmp_path / "run")
    seen = [{**line, "split": "test"} for line in rows(folder)]
    build(
        tmp_path / "s",
        Kind.LABELLED_IMAGES,
        [write(folder / "s.jsonl", seen)],
        source_format="jsonl",
    )
    with pytest.raises(UsageError, match="the test part of .* 64 pictures that the run was train"):
        opened(trained).evaluate([str(tmp_path / "s")], "", mesh)


def test_without_data_the_number_of_classes_must_be_set():
    config = tiny.changed(image_config("D"), task={"classes": 7})
    step = abstract_step(config, tiny.mesh_of(2))
    assert step.state.params["head"]["out"]["kernel"].shape == (32, 7)
    batches = random_batches(config, step.batches, seed=0)
    assert batches["image"]["label"].shape == (32,)
    with pytest.raises(UsageError, match="task.classes=0: without data"):
        abstract_step(image_config("D"), tiny.mesh_of(2))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "image_classification", "classes": 1}, "classes=1: must be at least 2"),
        ({"kind": "image_classification", "image": {"batch_size": 7}}, "batch_size=7 must be even"),
        ({"kind": "image_classification", "pool": "max"}, "pool='max': must be one of mean, cls"),
        ({"kind": "text_classification", "text": {"text_length": 999}}, "text_length=999 must be"),
        ({"kind": "text_classification"}, "text_tokenizer is empty"),
        ({"kind": "image_classification", "image": {"sources": ()}}, "image.sources is empty"),
        ({"kind": "image_classification", "image": {"mixupp": 0.1}}, "mean .*image.mixup"),
    ],
)
def test_bad_settings_are_refused_by_name(task, said):
    with pytest.raises(UsageError, match=said):
        parse({"task": task})
