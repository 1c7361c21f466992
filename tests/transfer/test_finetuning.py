"""The study's fine-tuning: what its runs are, what is chosen, and what becomes of the answers."""

import copy
import json
import runpy

import numpy as np
import pytest

from tests import tiny
from tests.convert.conftest import write_random_run
from tools.emoji.folds import FOLDS, fold_of, split_of
from tools.transfer import finetune, fit, probing, retrieval, vqa_cell
from tools.transfer.by_folds import Rows
from tools.transfer.fit import PARTS, STARTS, Fit, Study
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import SPLITS, TEST, TRAIN, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.retrieval import Ranks, recalls
from vlbeit_jax.tasks import parse
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.types import Kind


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A run of random weights whose network reads texts as long as the recipes' are."""
    config = tiny.changed(
        tiny.pretrain_config(world), task={"model": {"text_positions": 24, "drop_path": 0.0}}
    )
    return write_random_run(tmp_path_factory.mktemp("transfer") / "run", config, world)


@pytest.fixture(scope="module")
def emoji():
    """All emoji with their groups, each in the fold that tests it."""
    found = open_set("sample:emoji")
    records = [found.records(split)[i] for split in SPLITS for i in range(found.count(split))]
    return [(as_text(each["id"]), as_text(each["group"])) for each in records]


@pytest.mark.parametrize("name", finetune.TASKS)
def test_runs_differ_in_start_rate_and_part_alone(run, name, tmp_path):
    task = finetune.study_of(name)
    assert all(task.settled[start] in task.rates[start] for start in STARTS)
    one = [each for unit in Study(task, run, tmp_path).units for each in unit]
    assert {(each.start, each.rate) for each in one} == set(task.settled.items())
    assert len(set(one)) == len(one) == PARTS * len(STARTS)
    study = Study(task, run, tmp_path, all_rates=True)
    fits = [each for unit in study.units for each in unit]
    assert len(set(fits)) == len(fits) == PARTS * sum(map(len, study.task.rates.values()))
    assert len({each.name for each in fits}) == len(fits) and PARTS >= 3
    for unit in study.units:
        assert len({(each.rate, each.part) for each in unit}) == 1
        assert len({study.config(each).optimizer.layer_decay for each in unit}) == 1
    for each in (fits[0], fits[-1]):
        config = study.config(each)
        assert config.run.start_from == (str(run) if each.start == "pretrained" else "")
        assert (config.optimizer.peak_lr, config.run.seed) == (each.rate, each.part)
        decay = study.recipe()["optimizer"]["layer_decay"]
        assert config.optimizer.layer_decay == (decay if each.start == "pretrained" else 1.0)
        assert config.task.model.width == 32 and config.task.model.text_positions == 24
        assert config.run.steps > 10 * config.optimizer.warmup_steps - 10
        (source,) = getattr(config.task, config.task.schedule).sources
        assert source == study.task.source or source == str(tmp_path / "sets" / str(each.part))
    assert Study(study.task, run, tmp_path, steps=40).config(fits[0]).run.steps == 40


def invented(task, emoji, rng):
    """Answers of all runs: each start has one rate that is better on validation, and other ones."""
    good = {"pretrained": 1.6e-2, "random": 1e-3}
    found = {}
    for start, rates in task.rates.items():
        for rate in rates:
            for fold in range(FOLDS):
                answers = {VALIDATION: {}, TEST: {}}
                for name, group in emoji:
                    split = split_of(group, fold)
                    odds = {TEST: 0.5, VALIDATION: 0.9 if rate == good[start] else 0.4}
                    if split != TRAIN:
                        answers[split][name] = [float(rng.random() < odds[split]), "said"]
                found[Fit(start, rate, fold)] = answers
    return good, found


def test_a_rate_is_chosen_by_validation_and_its_answers_are_compared(emoji, tmp_path, monkeypatch):
    task = finetune.study_of("emoji_category")
    task.prepare(tmp_path)
    nothing = probing.Outcome(np.zeros(len(emoji)), ())
    monkeypatch.setattr(probing, "ridge", lambda *_: nothing)  # It takes seconds.
    good, found = invented(task, emoji, np.random.default_rng(0))
    made = task.results(found, tmp_path)
    by_group, by_row = (
        made["results"]["emoji_category"][f"accuracy_by_{each}"] for each in ("group", "row")
    )
    for start in STARTS:
        rates = made["protocol"]["rates"][start]
        assert rates["chosen"] == [good[start]] * FOLDS
        assert rates["validation"][str(good[start])] == max(rates["validation"].values())
        right: dict[str, list[float]] = {}
        for name, group in emoji:
            hit = found[Fit(start, good[start], fold_of(group))][TEST][name][0]
            right.setdefault(group, []).append(hit)
        assert by_group[start] == pytest.approx(np.mean([np.mean(each) for each in right.values()]))
        assert by_row[start] == pytest.approx(
            np.mean([hit for each in right.values() for hit in each])
        )
    gain = by_group["gain"]
    assert gain["value"] == pytest.approx(by_group["pretrained"] - by_group["random"])
    assert gain["low"] < gain["value"] < gain["high"] and by_group["seeds"] == FOLDS
    # The floors are those of the frozen probe (docs/sample_transfer.md): the folds are the same.
    assert round(by_group["floors"]["pixel_nearest_neighbour"], 3) == 0.450
    assert round(by_row["floors"]["majority"], 3) == 0.236
    assert made["protocol"]["rows"] == 1636 and made["protocol"]["groups"] == 1241
    # Without the other rates, the same is compared.
    of_the_best = {each: found[each] for each in found if each.rate == good[each.start]}
    alone = task.results(of_the_best, tmp_path)
    assert alone["results"] == made["results"]
    assert list(alone["protocol"]["rates"]["random"]["validation"]) == [str(good["random"])]
    # A better test changes no choice.
    for each, answers in found.items():
        if each.rate != good[each.start]:
            answers[TEST] = {name: [1.0, "said"] for name in answers[TEST]}
    again = task.results(found, tmp_path)["results"]["emoji_category"]["accuracy_by_row"]
    assert again["pretrained"] == by_row["pretrained"]


def test_retrieval_is_compared_query_by_query(tmp_path):
    """The figures are the package's recalls, where all thirds have chosen one rate."""
    task, rng = retrieval.TASK, np.random.default_rng(0)
    pairs = open_set(retrieval.SET, Kind.PAIRS)
    count = pairs.count(VALIDATION)
    best = {"pretrained": 1e-3, "random": 5e-4}
    found = {
        Fit(start, rate, part): {
            name: rng.integers(1, 30 if rate == best[start] else count, count).tolist()
            for name in ("of_texts", "of_images")
        }
        for start, rates in task.rates.items()
        for rate in rates
        for part in range(PARTS)
    }
    made = task.results(found, tmp_path)
    alone = {each: found[each] for each in found if each.rate == best[each.start]}
    assert task.results(alone, tmp_path)["results"] == made["results"]
    metrics = made["results"]["retrieval"]
    assert set(metrics) == {"recall_10", *retrieval.METRICS}
    for start in STARTS:
        assert made["protocol"]["rates"][start]["chosen"] == [best[start]] * 3
        runs = [found[Fit(start, best[start], part)] for part in range(PARTS)]
        expected = [
            recalls(Ranks(np.array(each["of_texts"]), np.array(each["of_images"]))) for each in runs
        ]
        for name in retrieval.METRICS:
            mean = np.mean([each[name] for each in expected])
            assert metrics[name][start] == pytest.approx(mean), name
        both = [metrics[f"{way}/recall_10"][start] for way in retrieval.DIRECTIONS]
        assert metrics["recall_10"][start] == pytest.approx(np.mean(both))
    assert metrics["text_to_image/recall_10"]["floors"]["chance"] == pytest.approx(10 / count)
    assert metrics["recall_10"]["gain"]["low"] < metrics["recall_10"]["gain"]["value"]


def test_floors_of_questions(tmp_path, monkeypatch):
    """Against loops, on few emoji; and the nearest in the cell is the nearest emoji."""
    from tools.emoji import sets

    parts = sets.by_split(open_set("sample:emoji"), 1)
    few = {TRAIN: parts[TRAIN][::12], VALIDATION: parts[VALIDATION][:4], TEST: parts[TEST][::40]}
    monkeypatch.setattr(sets, "by_split", lambda found, fold: few)
    sets.make(Kind.QUESTIONS, 1, tmp_path / "questions")
    found = open_set(str(tmp_path / "questions"), Kind.QUESTIONS)
    records = found.records(TEST)
    tested = [records[number] for number in range(len(records))]
    rows = Rows([as_text(each["id"]) for each in tested], np.array(["unused"] * len(tested)))
    floors = vqa_cell.TASK.floors([found], rows)
    labels = [record["label"] for record in few[TRAIN]]
    common = max(sorted(set(labels)), key=labels.count)
    pixels = [decode(each["image"])[::4, ::4].reshape(-1) / 255.0 for each in few[TRAIN]]
    agreed = 0
    for number, record in enumerate(tested):
        own = few[TEST][number // 4]
        assert floors["question_alone"][number] == (own["label"] == common)
        query = decode(own["image"])[::4, ::4].reshape(-1) / 255.0
        near = labels[int(np.argmin([((query - each) ** 2).sum() for each in pixels]))]
        cell = floors["pixel_nearest_neighbour_in_the_cell"][number]
        agreed += cell == (near == own["label"])
        assert as_text(record["group"]) == own["group"]
    assert agreed > 0.75 * len(tested)  # Every fourth pixel is not quite the mean of sixteen.
    whole = floors["pixel_nearest_neighbour"].mean()
    assert whole < floors["pixel_nearest_neighbour_in_the_cell"].mean()


def test_a_finished_run_is_not_trained_again(run, tmp_path, monkeypatch):
    study = Study(finetune.study_of("emoji_category"), run, tmp_path)
    place = study.place(Fit("random", 1e-3, 2))
    place.mkdir(parents=True)
    (place / fit.ANSWERS).write_text('{"answers": 1, "cpu_seconds": 2}')
    monkeypatch.setattr(fit, "train", None)  # A call would raise.
    assert study.answers_of(Fit("random", 1e-3, 2)) == {"answers": 1, "cpu_seconds": 2}
    with pytest.raises(TypeError):
        monkeypatch.setattr(
            type(study.task), "data", lambda *_: {"image": {"sources": ["somewhere"]}}
        )
        study.answers_of(Fit("random", 1e-3, 1))


def test_an_unknown_task_and_an_unfinished_run_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="emoji_category, retrieval, vqa_cell"):
        finetune.study_of("birds")
    config = json.loads((run / "config.json").read_text())
    config["run"]["steps"] += 1
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    for path in run.iterdir():
        (unfinished / path.name).symlink_to(path)
    (unfinished / "config.json").unlink()
    (unfinished / "config.json").write_text(json.dumps(config))
    study = Study(finetune.study_of("retrieval"), unfinished, tmp_path / "out")
    with pytest.raises(UsageError, match="let it finish first"):
        finetune.carried_out(study)
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_every_task_is_that_of_its_configuration():
    for name in finetune.TASKS:
        values = runpy.run_path(str(fit.RECIPES))["get_config"](name).to_dict()
        task = values["task"]
        if name not in ("emoji_category", "segmentation"):
            task["text_tokenizer"] = "T"
        stream = next(each for each in ("image", "question", "pair") if each in task)
        task[stream]["sources"] = task[stream]["sources"] or ["D"]
        assert parse(values | {"task": task}).run.steps == values["run"]["steps"] >= 300
    with pytest.raises(ValueError, match="emoji_category, vqa_cell, segmentation, retrieval"):
        runpy.run_path(str(fit.RECIPES))["get_config"]("birds")


@pytest.mark.slow
@pytest.mark.parametrize("name", finetune.TASKS)
def test_every_task_from_end_to_end(run, name, tmp_path):
    """Two steps of each run; then nothing is trained again, and the same comes out."""
    task = copy.copy(finetune.study_of(name))
    # Three programs are enough, or six with a decay.
    object.__setattr__(task, "rates", dict.fromkeys(STARTS, (1e-3,)))
    object.__setattr__(task, "settled", dict.fromkeys(STARTS, 1e-3))
    study = Study(task, run, tmp_path / name, steps=2)
    made = finetune.carried_out(study, workers=2)
    for found in made["results"][name].values():
        assert set(found) == {"pretrained", "random", "floors", "gain", "seeds"}
        assert 0 <= found["pretrained"] <= 1 and 0 <= found["random"] <= 1 and found["floors"]
    assert made["protocol"]["recipe"]["run"]["steps"] == 2 and made["protocol"]["cpu_seconds"] > 0
    for path in (tmp_path / name / "runs").iterdir():
        read_config(path).task.open(path)  # What is written there spoils no run.
    runs = sorted((tmp_path / name / "runs").iterdir())
    starts = [path.name for path in runs if (path / "start.json").is_file()]
    assert starts == [f"pretrained_0.001_{part}" for part in range(PARTS)] and len(runs) == 6
    (runs[0] / fit.ANSWERS).unlink()  # As if it had been killed after its last step.
    stamps = {path: (path / fit.ANSWERS).stat().st_mtime_ns for path in runs[1:]}
    again = finetune.carried_out(study, workers=1)
    assert again["results"] == made["results"]
    assert stamps == {path: (path / fit.ANSWERS).stat().st_mtime_ns for path in runs[1:]}
