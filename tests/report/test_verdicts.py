"""A failure never looks like a success, whether one sees the colour or not."""

import numpy as np
import pytest

from tests.metrics.test_masked import scores
from vlbeit_jax.report import words
from vlbeit_jax.report.codebook import codebook_verdict, perplexity
from vlbeit_jax.report.judged import judged
from vlbeit_jax.report.verdicts import SIGNS, Level, bounds_of
from vlbeit_jax.tasks.pretrain import Pretrain


def figures(accuracy, unigram=0.1, chance=0.01, **more):
    return {
        "accuracy": accuracy,
        "unigram": unigram,
        "chance": chance,
        "loss": 1.0,
        "count": 10_000,
        **more,
    }


@pytest.mark.parametrize(
    ("found", "level", "told"),
    [
        (figures(0.3, accuracy_interval=[0.29, 0.31]), Level.GOOD, "3.0 times"),
        (figures(0.11, accuracy_interval=[0.09, 0.13]), Level.UNCLEAR, "may be chance"),
        (figures(0.09, accuracy_interval=[0.08, 0.11]), Level.BAD, "only how frequent"),
        (figures(0.1, accuracy_interval=[0.1, 0.1]), Level.BAD, "only how frequent"),
        (figures(0.01, accuracy_interval=[0.0, 0.02]), Level.BAD, "learnt nothing"),
        (figures(float("nan"), accuracy_interval=[0.0, 0.0]), Level.BAD, "learnt nothing"),
        (figures(0.3), Level.GOOD, "3.0 times"),
        (figures(0.105), Level.UNCLEAR, "may be chance"),
    ],
)
def test_an_accuracy_is_judged_by_its_baselines(found, level, told):
    verdict = words.accuracy_verdict("mlm", found, bounds_of(found), True)
    assert verdict.level == level and told in verdict.reason
    assert SIGNS[level] in verdict.badge() and f"verdict {level}" in verdict.badge()
    untrained = words.accuracy_verdict("mlm", found, bounds_of(found), False)
    assert untrained.level == Level.NONE and "saw no texts alone" in untrained.reason


def test_more_draws_of_the_same_records_make_no_figure_surer():
    one, many = bounds_of(figures(0.105)), bounds_of(figures(0.105), draws=16)
    assert many.high - many.low == pytest.approx(4 * (one.high - one.low))
    assert not one.exact and bounds_of(figures(0.3, accuracy_interval=[0.2, 0.4])).exact


@pytest.mark.parametrize(
    ("low", "high", "level", "told"),
    [
        (0.01, 0.03, Level.GOOD, "uses the picture"),
        (-0.01, 0.03, Level.UNCLEAR, "holds 0: this run does not show that the model uses"),
        (0.0, 0.03, Level.UNCLEAR, "holds 0"),
        (-0.03, -0.01, Level.BAD, "belong together"),
    ],
)
def test_a_gain_is_judged_by_its_interval(low, high, level, told):
    found = {"value": (low + high) / 2, "low": low, "high": high}
    verdict = words.gain_verdict("gain_text", found, True)
    assert verdict.level == level and told in verdict.reason
    assert words.gain_verdict("gain_text", found, False).level == Level.NONE


def test_every_term_and_gain_is_explained():
    task = Pretrain()
    told = {words.meaning(name, task) for name in words.TITLES}
    assert len(told) == 4 and any("75 of the 196 patches" in each for each in told)
    all_terms = dict(words.glossary(task, task.used_streams))
    assert {"Visual token", "Word piece", "Unigram baseline", "Chance"} <= all_terms.keys()
    assert "Word piece" not in dict(words.glossary(task, ("image",)))
    assert "Visual token" not in dict(words.glossary(task, ("text",)))


def test_a_collapsed_codebook_is_said():
    assert codebook_verdict(200, 256, 64, 64).level == Level.GOOD
    assert codebook_verdict(100, 256, 64, 64).level == Level.UNCLEAR
    assert codebook_verdict(20, 256, 64, 64).level == Level.BAD
    assert perplexity(np.array([5, 5, 0, 5, 5])) == pytest.approx(4)


def test_the_pictures_that_were_looked_at_are_counted():
    told = codebook_verdict(200, 256, 64, 64).reason
    assert told == "200 of 256 visual tokens occur in the 64 held-out pictures."
    told = codebook_verdict(200, 256, 1000, 50_000).reason
    assert "in 1,000 of 50,000 held-out pictures, evenly spaced over the set" in told


def test_figures_of_fine_tuning_are_judged():
    metrics = {"accuracy": 0.4, "majority": 0.5, "accuracy_interval": [0.3, 0.6], "loss": 1.0}
    (found,) = judged({"metrics": metrics}, [])
    assert found.verdict.level == Level.BAD and found.baseline == 0.5
    (better,) = judged({"metrics": metrics | {"majority": 0.2}}, [])
    assert better.verdict.level == Level.GOOD
    name = "retrieval/text_to_image/recall_5"
    recall = {"metrics": {name: 0.1, f"{name}_interval": [0.02, 0.2]}}
    (unknown,) = judged(recall, [])
    assert unknown.verdict.level == Level.NONE
    (found,) = judged(recall | {"chance": {name.partition("/")[2]: 0.05}}, [])
    assert found.verdict.level == Level.UNCLEAR and "among the best 5" in found.title
    log = [{"split": "validation", "class/accuracy": 0.7, "class/majority": 0.2, "step": 1}]
    (logged,) = judged(None, log)
    assert logged.value == 0.7 and logged.verdict.level == Level.UNCLEAR and not judged(None, [])
    log = [{"split": "validation", name: 0.1, f"chance/{name.partition('/')[2]}": 0.2, "step": 1}]
    (logged,) = judged(None, log)
    assert logged.baseline == 0.2 and logged.verdict.level == Level.BAD


def test_the_interval_of_an_accuracy_draws_whole_records():
    # Two masks of each record, alike: as wide as with one mask, and wider than with four records.
    one = scores(range(8), [7, 0, 7, 0, 7, 0, 7, 0])
    two = scores([*range(8)] * 2, [7, 0, 7, 0, 7, 0, 7, 0] * 2)
    many = scores(range(64), [7, 0] * 32)
    assert one.accuracy_interval() == two.accuracy_interval()
    low, high = one.accuracy_interval()
    closer = many.accuracy_interval()
    assert low < closer[0] < 0.5 < closer[1] < high
    always = scores(range(8), [7] * 8)
    assert always.accuracy_interval() == (1.0, 1.0)
