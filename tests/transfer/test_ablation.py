"""The ablation: what is compared with what, and a run of it with tiny steps."""

import json

import numpy as np
import pytest

from tests import tiny
from tests.convert.conftest import write_random_run
from tools.transfer import ablation
from tools.transfer.fit import Scores
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.interval import paired_gain


def test_each_run_is_compared_with_the_one_before_it_and_with_the_first():
    rng, groups = np.random.default_rng(0), np.arange(300) // 3
    scores = {
        name: Scores((rng.random(300) < odds).astype(float), groups, "hits", True, 3)
        for name, odds in (("a", 0.3), ("b", 0.5), ("c", 0.5), ("d", 0.5))
    }
    found = ablation._compared(scores)
    assert list(found["gains"]) == ["b - a", "c - b", "d - c", "c - a", "d - a"]
    own, other = scores["b"].right, scores["a"].right
    gain = paired_gain(own, other, groups, each_group_once=True)
    assert found["gains"]["b - a"] == gain._asdict() and gain.low > 0
    assert found["gains"]["b - a"]["value"] == pytest.approx(own.mean() - other.mean())
    assert found["scores"]["a"] == pytest.approx(other.mean())
    text = ablation.table({"task": found})
    assert text.splitlines()[0].startswith("| task | metric | a | b | c | d | b - a (95%) |")
    assert f"| task | hits | {other.mean():.3f} |" in text


@pytest.mark.parametrize("named", [["a=RUN"], ["a=RUN", "a=OTHER"], ["a=RUN", "OTHER"]])
def test_two_runs_with_names_of_their_own_are_needed(named, tmp_path):
    with pytest.raises(UsageError, match="at least two runs and a name of its own"):
        ablation.main([str(tmp_path), *named])


@pytest.mark.slow
def test_two_runs_are_compared_and_a_second_call_trains_nothing(world, tmp_path):
    config = tiny.changed(
        tiny.pretrain_config(world), task={"model": {"text_positions": 24, "drop_path": 0.0}}
    )
    runs = {
        name: write_random_run(tmp_path / name, tiny.changed(config, run={"seed": seed}), world)
        for seed, name in enumerate(("one", "two"))
    }
    found = ablation.ablation(tmp_path / "out", runs, steps=2)
    assert set(found["results"]) == {"emoji_frozen", "retrieval", "emoji_category"}
    for each in found["results"].values():
        assert set(each["scores"]) == {"one", "two"} and list(each["gains"]) == ["two - one"]
    folders = [*(tmp_path / "out").glob("*/*/runs/*/config.json")]
    before = {path: path.stat().st_mtime_ns for path in folders}
    assert len(before) == 2 * 2 * 3 * 3
    assert ablation.ablation(tmp_path / "out", runs, steps=2) == found
    assert {path: path.stat().st_mtime_ns for path in before} == before
    json.dumps(found)
