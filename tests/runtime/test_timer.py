"""Shares of time add up to the wall time, and rates are work divided by the time of the steps."""

import pytest

from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.runtime import timer


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch):
        self.now, self.compiled = 100.0, 0.0
        monkeypatch.setattr(timer.time, "monotonic", lambda: self.now)


def test_rates_and_shares_add_up(monkeypatch):
    clock = Clock(monkeypatch)
    found = timer.Timer(1000.0, lambda: clock.compiled)
    with found.waiting("data"):
        clock.now += 1
    clock.now += 4
    clock.compiled += 4
    for _ in range(2):
        clock.now += 5
        found.count(StepFlops(model=500.0, frozen=70.0, tokens=30, samples=3))
    with found.waiting("checkpoint"):
        clock.now += 5
    # Twenty seconds: 1 of data, 4 of compilation, 5 of a checkpoint, 10 of steps.
    assert found.summary() == pytest.approx(
        {
            "samples_per_second": 0.6,
            "tokens_per_second": 6,
            "model_flops_per_second": 100,
            "mfu": 0.1,
            "data_wait": 0.05,
            "checkpoint_wait": 0.25,
            "goodput": 0.5,
        }
    )


def test_a_summary_starts_anew_but_goodput_is_that_of_the_whole_run(monkeypatch):
    clock = Clock(monkeypatch)
    found = timer.Timer(1000.0, lambda: clock.compiled)
    with found.waiting("evaluation"):
        clock.now += 10
    assert found.summary()["goodput"] == 0
    clock.now += 30
    found.count(StepFlops(model=3000.0, frozen=0.0, tokens=1, samples=1))
    figures = found.summary()
    assert figures["mfu"] == pytest.approx(0.1) and figures["data_wait"] == 0
    assert figures["goodput"] == pytest.approx(0.75)


def test_the_totals_of_a_start_add_up(monkeypatch):
    clock = Clock(monkeypatch)
    found = timer.Timer(1000.0, lambda: clock.compiled, start_seconds=7.0)
    clock.now += 3
    found.steps_begin()
    clock.now += 20
    clock.compiled += 4
    with found.waiting("evaluation"):
        clock.now += 5
    totals = found.totals()
    assert totals == {
        "wall": 35.0,
        "start": 10.0,
        "steps": 16.0,
        "compile": 4.0,
        "evaluation": 5.0,
        "data": 0.0,
        "checkpoint": 0.0,
    }
    assert found.summary()["goodput"] == pytest.approx(16 / 25)  # Since the first step began.
