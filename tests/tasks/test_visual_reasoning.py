"""Visual reasoning: it learns, resumes, evaluates and predicts as it says."""

import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.kept_steps import kept_steps
from tests.tasks.finetuned import evaluated, in_one_go_and_in_two, opened
from tests.tasks.paired_world import MODEL, config, start_in, tokenizer_in
from tests.tasks.statement_world import prepare, reasoning_task
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.flops import flops_of_streams
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.training.mesh import make_mesh

STEPS, LEARNT, FASTER_HEAD = 40, 300, {"head_factor": 5.0}


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_in(folder)


@pytest.fixture(scope="module")
def statements(folder):
    return prepare(folder / "own")


@pytest.fixture(scope="module")
def start(folder):
    return str(start_in(folder))


@pytest.fixture(scope="module")
def settings(statements, tokenizer, start):
    """A run with everything that draws: crops, flips, RandAugment, drop path."""
    drawn = {"rand_augment": "light", "flip": 0.5, "batch_size": 16, "crop_scale": 0.5}
    task = reasoning_task(statements, tokenizer, statement=drawn)
    found = config(task, STEPS, FASTER_HEAD, start_from=start)
    return tiny.changed(found, task={"model": {"drop_path": 0.3}})


@pytest.fixture(scope="module")
def trained(folder, settings):
    with kept_steps():
        train(settings, folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_it_learns_its_statements_and_is_better_than_chance_on_new_ones(
    folder, statements, tokenizer, start
):
    run, task = folder / "learnt", reasoning_task(statements, tokenizer)
    train(config(task, LEARNT, FASTER_HEAD, start_from=start), run)
    assert evaluated(run, statements, "train")["metrics"]["accuracy"] >= 62 / 64
    # With permuted truth (below) new ones are a coin.
    assert evaluated(run, statements, "test")["metrics"]["accuracy"] > 0.75


@pytest.mark.slow  # The control of test_classification.py is in the normal suite.
def test_permuted_truth_gives_chance_on_new_statements(folder, tokenizer, start):
    sets = prepare(folder / "permuted", seed=1, permute=True)
    task = reasoning_task(sets, tokenizer)
    train(config(task, LEARNT, FASTER_HEAD, start_from=start), folder / "permuted" / "run")
    known = evaluated(folder / "permuted" / "run", sets, "train")["metrics"]["accuracy"]
    found = evaluated(folder / "permuted" / "run", sets, "test")["metrics"]["accuracy"]
    assert known > 0.75 and abs(found - 0.5) < 0.2


def test_the_second_image_starts_with_the_type_of_the_first(trained, folder, start):
    found = json.loads((trained / "start.json").read_text())
    assert found["copied"] == {"vision_embed/second_type": "vision_embed/type"}
    assert all(name.startswith("head/") for name in found["fresh"])
    assert "vision_embed/type" in found["same"] and "vision_embed/type" not in found["dropped"]
    assert "1 copied" in (trained / "log.txt").read_text()
    learned = opened(trained).params["vision_embed"]
    assert np.abs(learned["second_type"] - learned["type"]).max() > 1e-3  # They are two by now.


def test_evaluation_repeats_the_log_and_states_the_protocol(trained, statements):
    found = evaluated(trained, statements, "validation")
    line = next(line for line in tiny.metrics_of(trained) if line["split"] == "validation")
    metrics, protocol = found["metrics"], found["protocol"]
    for name in ("accuracy", "consistency", "consistency_chance", "majority", "count", "loss"):
        assert line[f"statement/{name}"] == pytest.approx(metrics[name], abs=1e-6), name
    assert metrics["count"] == 16 == found["groups"] and metrics["statements"] == 8
    assert metrics["majority"] == 0.5 and metrics["consistency_chance"] == 0.25
    for name in ("accuracy", "consistency"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high
    assert protocol["view"] == "squash" and protocol["ties"] == "wrong"
    assert protocol["share_of_cut_texts"] == 0 and protocol["task"] == "visual_reasoning"
    assert "consistency" in (trained / "log.txt").read_text()
    json.dumps(found)


def test_predictions_equal_the_evaluation_row_by_row(trained, statements):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    records = open_set(str(statements)).records("test")
    found = list(run.predict(records, 2, mesh))
    right = np.array([line["truth"] == records[i]["truth"] for i, line in enumerate(found)])
    metrics = run.evaluate([str(statements)], "test", mesh)["metrics"]
    assert right.mean() == metrics["accuracy"] and len(found) == metrics["count"]
    names = np.array([as_text(records[i]["statement"]) for i in range(len(found))])
    consistent = [right[names == name].all() for name in np.unique(names)]
    assert np.mean(consistent) == metrics["consistency"]
    for line in found:
        assert line["top"][0][0] == ("true" if line["truth"] else "false")
        assert sum(share for _, share in line["top"]) == pytest.approx(1)
    # New records have no truth, and come in any order; the images' order matters.
    names = ("id", "image", "second_image", "text")
    asked = [{name: records[i][name] for name in names} for i in (7, 3)]
    again = list(run.predict(asked, 2, mesh))
    assert [line["truth"] for line in again] == [found[7]["truth"], found[3]["truth"]]
    turned = [
        {**records[i], "image": records[i]["second_image"], "second_image": records[i]["image"]}
        for i in range(len(found))
    ]
    one, other = (
        np.array([dict(line["top"])["true"] for line in lines])
        for lines in (found, run.predict(turned, 2, mesh))
    )
    assert np.abs(one - other).max() > 1e-3  # Predictions of one batch are equal to 1e-6.


def test_two_steps_a_kill_and_two_steps_are_four(settings, tmp_path):
    settings = tiny.changed(settings, run={"checkpoint_every": 2, "evaluate_every": 0})
    whole, again = in_one_go_and_in_two(settings, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_bad_settings_are_refused_by_name():
    statement = {"text_length": 2, "weights": [1.0]}
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "visual_reasoning", "statement": statement}})
    for said in (
        "config.task.statement.sources is empty",
        "config.task.statement.weights: 1 for 0 sources",
        "config.task.statement.text_length=2 must be in [3, model.text_positions=64]",
        "config.task.text_tokenizer is empty: give the folder 'text_tokenizer' of the run",
    ):
        assert said in str(caught.value)


def test_a_row_costs_two_pairs_and_its_head():
    """Against question answering, whose row is one pair; a product counts forward and backward."""
    base = {"batch_size": 4, "text_length": 24}
    model = ModelConfig(**MODEL)
    reasoning = VisualReasoning(model=model, statement=PairedStreamConfig(**base))
    answering = VQATask(model=model, question=PairedStreamConfig(**base), answer_count=7)
    found = flops_of_streams(reasoning)["statement"]
    other = flops_of_streams(answering)["question"]
    width = model.width
    own_head = 3 * 2 * (4 * width * 2 * width + 2 * width * 2)
    other_head = 3 * 2 * (width * width + width * 2 * width + 2 * width * 7)
    pair = other.model / 4 - other_head
    assert found.model / 4 - own_head == 2 * pair
    assert found.tokens == 2 * other.tokens and found.samples == other.samples == 4
