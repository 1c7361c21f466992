"""Log lines, pages and model cards know the same baselines, and prefer the same one."""

import pytest

from vlbeit_jax.convert.card_figures import table
from vlbeit_jax.report.judged import judged
from vlbeit_jax.runtime.lines import line
from vlbeit_jax.tasks.figures import BASELINES


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_shown_everywhere(name):
    figures = {"answer/accuracy": 0.5, f"answer/{name}": 0.25}
    assert f"answer 50.0% > {name} 25.0%" in line(1, 2, "validation", figures)
    *_, row = table(figures)
    assert row.endswith(f"| {BASELINES[name].answer} 25.00% |")
    (found,) = judged({"metrics": {"accuracy": 0.5, name: 0.25}}, [])
    assert found.baseline == 0.25 and BASELINES[name].figure in found.verdict.reason


def test_the_best_constant_answer_comes_before_a_uniform_guess():
    assert list(BASELINES)[-1] == "chance"
    metrics = {"accuracy": 0.5, "chance": 0.1, "majority": 0.25}
    figures = {f"answer/{name}": value for name, value in metrics.items()}
    assert "> majority 25.0%" in line(1, 2, "validation", figures)
    *_, row = table(figures)
    assert row.endswith("| most frequent class 25.00%, chance 10.00% |")
    (found,) = judged({"metrics": metrics}, [])
    assert found.baseline == 0.25


def test_another_figure_is_no_baseline():
    """The control."""
    figures = {"answer/accuracy": 0.5, "answer/other": 0.25}
    assert ">" not in line(1, 2, "validation", figures)
    assert table(figures)[2].endswith("|  |")
    (found,) = judged({"metrics": {"accuracy": 0.5, "other": 0.25}}, [])
    assert found.baseline is None
