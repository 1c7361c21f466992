"""Captioning: it learns, resumes, evaluates and predicts as it says."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch

from tests import tiny
from tests.tasks.captioned_world import MODEL, captioning_task, prepare, tokenizer_in
from tests.tasks.finetuned import evaluated, in_one_go_and_in_two, opened
from tests.tasks.paired_world import config, start_in
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.finetuned import read_finetuned, write_evaluation
from vlbeit_jax.convert.formats import torch_finetuned
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.captions import scores, words
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.open_captioning import references_of
from vlbeit_jax.training.mesh import make_mesh

STEPS, FAST, COLOURS_ABOVE = 300, {"peak_lr": 4e-3}, "abcdefgh"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_in(folder)


@pytest.fixture(scope="module")
def pairs(folder):
    return prepare(folder / "own")


@pytest.fixture(scope="module")
def start(folder):
    return str(start_in(folder, MODEL))


@pytest.fixture(scope="module")
def trained(folder, pairs, tokenizer, start):
    task = captioning_task(pairs, tokenizer, beams=1)
    train(config(task, STEPS, FAST, start_from=start), folder / "run")
    return folder / "run"


def written(run, records):
    lines = run.predict(records, 1, make_mesh(MeshConfig()))
    return [line["caption"] for line in lines]


def test_greedy_captions_equal_the_references_of_what_was_learnt(trained, pairs):
    run = opened(trained)
    records = open_set(str(pairs)).records("train")
    given = references_of(records, len(records))
    right = [caption in own for caption, own in zip(written(run, records), given, strict=True)]
    assert np.mean(right) >= 62 / 64
    # Of most new pictures, captions name both colours; with permuted captions (below) few do.
    new = open_set(str(pairs)).records("test")
    assert named(written(run, new), new) > 0.5
    assert evaluated(trained, pairs, "train")["metrics"]["bleu_1"] > 0.97


def named(captions, records):
    """Share of the captions that name the colour above."""
    given = references_of(records, len(records))
    colours = [next(word for word in own[0].split() if word in COLOURS_ABOVE) for own in given]
    return np.mean([colour in words(one) for colour, one in zip(colours, captions, strict=True)])


@pytest.mark.slow  # The control of test_classification.py is in the normal suite.
def test_permuted_captions_give_chance_on_new_pictures(folder, tokenizer, start):
    sets = prepare(folder / "permuted", seed=1, permute=True)
    task = captioning_task(sets, tokenizer, beams=1)
    train(config(task, 150, FAST, start_from=start), folder / "permuted" / "run")
    records = open_set(str(sets)).records("test")
    found = named(written(opened(folder / "permuted" / "run"), records), records)
    assert abs(found - 1 / len(COLOURS_ABOVE)) < 0.15


def test_the_start_gives_the_head_of_word_pieces(trained):
    told = json.loads((trained / "start.json").read_text())
    assert "language_head/kernel" in told["same"]
    assert not told["fresh"]


def test_evaluation_repeats_the_log_and_states_the_protocol(trained, pairs):
    found = evaluated(trained, pairs, "validation")
    line = next(line for line in tiny.metrics_of(trained) if line["split"] == "validation")
    metrics, protocol = found["metrics"], found["protocol"]
    for name in ("cider", "cider_wrong_picture", "bleu_1", "bleu_4", "rouge_l", "count"):
        assert line[f"caption/{name}"] == metrics[name]
    assert metrics["count"] == 16 == found["groups"] == protocol["images"]
    for name in ("cider", "rouge_l"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high
    assert metrics["cider_wrong_picture"] < metrics["cider"]
    assert protocol["captions"] == 32 and protocol["search"] == "1 beams, length penalty 0.6"
    assert protocol["words"].startswith("vlbeit_jax words 1: lower case")
    assert protocol["document_frequencies"] == "captions of the 16 images that are scored"
    assert protocol["share_of_cut_texts"] == 0 and protocol["view"] == "squash"
    json.dumps(found)


def test_predictions_equal_the_evaluation_row_by_row(trained, pairs):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    records = open_set(str(pairs)).records("test")
    lines = list(run.predict(records, 1, mesh))
    metrics = run.evaluate([str(pairs)], "test", mesh)["metrics"]
    given = references_of(records, len(records))
    found = scores(
        [words(line["caption"]) for line in lines],
        [[words(caption) for caption in own] for own in given],
    )
    assert np.mean(found.cider) == metrics["cider"] and len(lines) == metrics["count"]
    assert found.bleu == tuple(metrics[f"bleu_{n}"] for n in (1, 2, 3, 4))
    assert np.mean(found.rouge_l) == metrics["rouge_l"]
    assert all(line["log_probability"] <= 0 and line["caption"] for line in lines)
    # Captions do not depend on what else is in the batch. New records have no captions.
    asked = [{name: records[index][name] for name in ("id", "image")} for index in (7, 3)]
    assert written(run, asked) == [lines[7]["caption"], lines[3]["caption"]]


@pytest.mark.parametrize("beams", [1, 3])
def test_pytorch_writes_the_same_captions_and_has_the_same_scores(trained, pairs, tmp_path, beams):
    source = read_finetuned(with_beams(trained, tmp_path / "run", beams), "raw")
    out = tmp_path / "out"
    out.mkdir()
    write_evaluation(source, [str(pairs)], "test", out)
    torch_finetuned.write(source, out)
    write_manifest(out)
    with verify.importable(out):
        module = verify.module_of(out / "evaluate.py")
        found, ours = module.evaluate(5)
        model = module.load(out)
    metrics = ours["metrics"]
    assert found == pytest.approx({name: metrics[name] for name in found}, abs=1e-6)
    assert len(found) == 7 and found["bleu_1"] > 0.5
    records = open_set(str(pairs)).records("test")
    image = np.stack(
        [WholeImage(32)(records[index], Draws("unused"))["image"] for index in range(8)]
    )
    rows = model.caption(module.prepared("image", torch.from_numpy(image))).tolist()
    text = source.opened.text
    assert [text.decode(row) for row in rows] == written(source.run, records)[:8]


def with_beams(folder, copy, beams):
    """A copy of a run whose captions are searched for with so many beams."""
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "config.json").read_text())
    settings["task"]["beams"] = beams
    (copy / "config.json").write_text(json.dumps(settings))
    return copy


def test_two_steps_a_kill_and_two_steps_are_four(pairs, tokenizer, tmp_path):
    """With everything that draws, and with positions that are left out from the third step on."""
    drawn = {"rand_augment": "light", "flip": 0.5, "batch_size": 16}
    task = captioning_task(pairs, tokenizer, drawn, drop_worst=0.2, drop_worst_after=2)
    settings = config(task, 4, checkpoint_every=2, evaluate_every=0)
    settings = tiny.changed(settings, task={"model": {"drop_path": 0.3}})
    whole, again = in_one_go_and_in_two(settings, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert int(again.model_state["pair"]["steps"]) == 4


def test_bad_settings_are_refused_by_name(pairs, tokenizer, tmp_path):
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "captioning", "beams": 0, "drop_worst": 1.0}})
    assert "config.task.beams=0: must be > 0" in str(caught.value)
    assert "config.task.drop_worst=1.0: must be in [0, 1)" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "captioning", "drop_worst_after": 5, "pair": {"text_length": 90}}})
    for said in (
        "config.task.drop_worst_after=5 has no use with drop_worst=0",
        "config.task.pair.sources is empty",
        "config.task.pair.text_length=90 must be in [3, model.text_positions=64]",
        "config.task.text_tokenizer is empty",
    ):
        assert said in str(caught.value)
