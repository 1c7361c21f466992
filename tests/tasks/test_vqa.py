"""Question answering: it learns, resumes, evaluates and predicts as it says."""

import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.kept_steps import kept_steps
from tests.make_data import build
from tests.tasks.finetuned import evaluated, in_one_go_and_in_two, opened
from tests.tasks.paired_world import (
    NAMES,
    config,
    prepare,
    rows,
    start_in,
    tokenizer_in,
    vqa_task,
    write,
)
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.vqa import Rule, vqa_score
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.types import Kind

STEPS, LEARNT, FASTER_HEAD = 40, 420, {"head_factor": 5.0}


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_in(folder)


@pytest.fixture(scope="module")
def questions(folder):
    return prepare(folder / "own", Kind.QUESTIONS)


@pytest.fixture(scope="module")
def start(folder):
    return str(start_in(folder))


@pytest.fixture(scope="module")
def settings(questions, tokenizer, start):
    """A run with everything that draws: crops, flips, RandAugment, drop path."""
    drawn = {"rand_augment": "light", "flip": 0.5, "batch_size": 16}
    task = vqa_task(questions, tokenizer, question=drawn)
    found = config(task, STEPS, FASTER_HEAD, start_from=start)
    return tiny.changed(found, task={"model": {"drop_path": 0.3}})


@pytest.fixture(scope="module")
def trained(folder, settings):
    with kept_steps():
        train(settings, folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_it_learns_its_questions_and_is_better_than_chance_on_new_ones(
    folder, questions, tokenizer, start
):
    run = folder / "learnt"
    train(config(vqa_task(questions, tokenizer), LEARNT, FASTER_HEAD, start_from=start), run)
    assert evaluated(run, questions, "train")["metrics"]["accuracy"] >= 62 / 64
    # Most new ones too; with permuted answers (below) it is a sixteenth.
    assert evaluated(run, questions, "test")["metrics"]["accuracy"] > 0.5


@pytest.mark.slow  # The control of test_classification.py is in the normal suite.
def test_permuted_answers_give_chance_on_new_questions(folder, tokenizer, start):
    sets = prepare(folder / "permuted", Kind.QUESTIONS, seed=1, permute=True)
    train(
        config(vqa_task(sets, tokenizer), 100, FASTER_HEAD, start_from=start),
        folder / "permuted" / "run",
    )
    found = evaluated(folder / "permuted" / "run", sets, "test")["metrics"]["accuracy"]
    assert abs(found - 1 / len(NAMES)) < 0.15


def test_evaluation_repeats_the_log_and_states_the_protocol(trained, questions):
    found = evaluated(trained, questions, "validation")
    line = next(line for line in tiny.metrics_of(trained) if line["split"] == "validation")
    metrics, protocol = found["metrics"], found["protocol"]
    for name in ("accuracy", "accuracy_other", "prior", "covered", "count"):
        assert line[f"answer/{name}"] == metrics[name]
    assert metrics["covered"] == 1 and metrics["count"] == 16 == found["groups"]
    low, high = metrics["accuracy_interval"]
    assert low <= metrics["accuracy"] <= high
    assert protocol["rule"] == "exact" and "somebody gave" in protocol["metric"]
    assert protocol["answers"] == len(NAMES) and protocol["view"] == "squash"
    assert protocol["share_of_cut_texts"] == 0 and protocol["task"] == "vqa"
    json.dumps(found)


def test_predictions_equal_the_evaluation_row_by_row(trained, questions):
    run, mesh = opened(trained), make_mesh(MeshConfig())
    records = open_set(str(questions)).records("test")
    found = list(run.predict(records, 3, mesh))
    scores = [
        vqa_score(line["answer"], [each.decode() for each in records[index]["answers"]], Rule.EXACT)
        for index, line in enumerate(found)
    ]
    metrics = run.evaluate([str(questions)], "test", mesh)["metrics"]
    assert np.mean(scores) == metrics["accuracy"] and len(found) == metrics["count"]
    for line in found:
        assert line["answer"] == line["top"][0][0] and len(line["top"]) == 3
        shares = [share for _, share in line["top"]]
        assert shares == sorted(shares, reverse=True) and 0 <= min(shares) <= max(shares) <= 1
    # New records have no answers, and come in any order.
    asked = [{name: records[i][name] for name in ("id", "image", "text")} for i in (7, 3)]
    again = list(run.predict(asked, 3, mesh))
    assert [line["answer"] for line in again] == [found[7]["answer"], found[3]["answer"]]


def test_two_steps_a_kill_and_two_steps_are_four(settings, tmp_path):
    settings = tiny.changed(settings, run={"checkpoint_every": 2, "evaluate_every": 0})
    whole, again = in_one_go_and_in_two(settings, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    other = write(tmp_path / "answers.txt", [])
    other.write_text("".join(f"{name}\n" for name in reversed(NAMES)))
    changed = tiny.changed(settings, task={"answers": str(other)})
    with pytest.raises(UsageError, match="answer list: the checkpoint has"):
        train(changed, tmp_path / "parts")


def test_a_changed_answer_list_of_a_run_is_refused(trained, tmp_path):
    for name in ("config.json", "answers.json"):
        (tmp_path / name).write_text((trained / name).read_text().replace('"red"', '"crimson"'))
    with pytest.raises(UsageError, match="answers.json was changed"):
        read_config(tmp_path).task.open(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answers_least": 40}, "0 were given to at least answers_least=40"),
        ({"answers": "missing.txt"}, "answer list missing.txt: cannot be read"),
        ({"model": {"vocabulary": 200}}, "300 pieces, but .*model.vocabulary=200"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_compiled(
    questions, tokenizer, tmp_path, changed, said
):
    settings = tiny.changed(config(vqa_task(questions, tokenizer), 2), task=changed)
    with pytest.raises(UsageError, match=said):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_settings_are_refused_by_name():
    bad = {"kind": "vqa", "rule": "best", "question": {"text_length": 2, "weights": [1.0]}}
    with pytest.raises(UsageError) as caught:
        parse({"task": bad})
    for said in ("config.task.rule='best': must be one of auto, official, exact",):
        assert said in str(caught.value)
    with pytest.raises(UsageError) as caught:
        parse({"task": {"kind": "vqa", "question": {"text_length": 2, "weights": [1.0]}}})
    for said in (
        "config.task.question.sources is empty",
        "config.task.question.weights: 1 for 0 sources",
        "config.task.question.text_length=2 must be in [3, model.text_positions=64]",
        "config.task.text_tokenizer is empty: give the folder 'text_tokenizer' of the run",
    ):
        assert said in str(caught.value)


def test_ten_answers_make_the_rule_official(folder, tokenizer, questions, tmp_path):
    path = write(folder / "ten.jsonl", rows(folder, seed=3, people=10))
    build(tmp_path / "ten", Kind.QUESTIONS, [path], source_format="jsonl")
    task = vqa_task(tmp_path / "ten", tokenizer).resolve()
    run = config(task, 2).run
    example = task.open().training_data(run).examples("question")[0]
    assert example["scores"].max() == 1 and task.open()._rule([10, 10]) == "official"
    mixed = vqa_task(tmp_path / "ten", tokenizer, rule="exact").resolve().open()
    assert mixed._rule([10]) == "exact"
    both = tiny.changed(
        vqa_task(questions, tokenizer),
        question={"sources": (str(questions), str(tmp_path / "ten"))},
    )
    assert len(both.resolve().opened_answers) == len(NAMES)
