"""A run that has diverged goes back to a good step, and past the records that were bad."""

import signal

import numpy as np
import pytest

from tests import tiny
from tests.runtime.test_resume import assert_equal_bits, weights
from tests.runtime.test_survival import one_trace  # noqa: F401
from vlbeit_jax.errors import Diverged, Preempted
from vlbeit_jax.runtime import history, start
from vlbeit_jax.runtime.rollback import roll_back
from vlbeit_jax.runtime.run_page import damaged_steps, page
from vlbeit_jax.runtime.start import train
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.step import TrainStep

BAD = (6, 7, 8)  # Steps whose loss is not finite.


def config_of(world, **run):
    values = {"steps": 12, "checkpoint_every": 2, "log_every": 2, "keep_last": 9} | run
    return tiny.pretrain_config(world, schedule="text", **values)


@pytest.fixture
def bad_records(monkeypatch):
    """Makes the loss of some steps NaN, as bad records would. Returns the steps that were taken."""
    taken, real = [], TrainStep.__call__

    def call(self, state, frozen, batches):
        number = int(state.step) + 1
        taken.append(number)
        if number in BAD:
            weight = batches["text"]["weight"] * np.float32(np.nan)
            batches = {"text": batches["text"] | {"weight": weight}}
        return real(self, state, frozen, batches)

    monkeypatch.setattr(TrainStep, "__call__", call)
    return taken


def test_a_run_goes_back_once_and_on_with_other_records(world, tmp_path, bad_records):
    run = tmp_path / "run"
    train(config_of(world, rollbacks=1), run)
    assert bad_records == [*range(1, 13)]  # No step is taken twice, so no record comes again.
    steps = Checkpointer(run / "checkpoints", read_only=True).steps()
    assert steps == [2, 4, 8, 10, 12]
    moved = sorted(path.name for path in (run / "checkpoints.rolled_back").iterdir())
    assert moved == ["6"]  # Step 8 had not been saved yet.
    assert_equal_bits(
        {name: leaf for name, leaf in weights(run, 8).items() if "step" not in name},
        {name: leaf for name, leaf in weights(run, 4).items() if "step" not in name},
    )
    (back,) = [each for each in history.read_history(run) if each["event"] == history.ROLLED_BACK]
    assert (back["step"], back["to"]) == (8, 4) and "3 updates in a row" in back["because"]
    log = (run / "log.txt").read_text()
    assert "rolled back to the state of step 4 (1 of run.rollbacks=1); the run goes on at" in log
    shown = page(run, damaged_steps(run, arrays=False))
    assert "rolled back: from step 8 to the state of step 4" in shown
    assert "lost: 4 steps were taken again or rolled back" in shown


def test_a_signal_that_comes_at_a_rollback_is_not_forgotten(
    world, tmp_path, bad_records, monkeypatch
):
    """The rollback is finished and saved; then the run ends."""
    run = tmp_path / "run"

    def go_back(*given):
        signal.raise_signal(signal.SIGTERM)
        return roll_back(*given)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # Outside ``main`` it would end pytest.
    monkeypatch.setattr(start, "roll_back", go_back)
    try:
        with pytest.raises(Preempted, match="SIGTERM came; step 9 is saved"):
            train(config_of(world, rollbacks=1), run)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Checkpointer(run / "checkpoints", read_only=True).steps() == [2, 4, 8, 9]
    assert bad_records == [*range(1, 10)]


class Died(BaseException):
    """What a process does that is killed, as far as files are concerned."""


def test_a_rollback_that_was_cut_off_does_not_count(world, tmp_path, bad_records, monkeypatch):
    run = tmp_path / "run"

    def die(*_):
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(start, "save_at_once", die)
        train(config_of(world, rollbacks=1), run)
    train(config_of(world, rollbacks=1), run)
    events = [(each["event"], each["step"]) for each in history.read_history(run)]
    assert events.count((history.ROLLED_BACK, 8)) == 1
    assert events.index((history.ROLLED_BACK, 8)) > events.index((history.SAVED, 8))
    assert Checkpointer(run / "checkpoints", read_only=True).steps() == [2, 4, 8, 10, 12]


@pytest.mark.slow
def test_rollbacks_are_counted_over_all_starts(world, tmp_path, bad_records):
    run = tmp_path / "run"
    with pytest.raises(Diverged, match="2 updates in a row"):
        train(config_of(world, refused_in_a_row=2), run)  # The control: by default there is none.
    assert not (run / "checkpoints.rolled_back").exists()
    history.History(run).add(history.ROLLED_BACK, {"step": 3, "to": 2, "because": ""})
    with pytest.raises(Diverged, match="2 updates in a row"):
        train(config_of(world, rollbacks=1, refused_in_a_row=2), run)
    assert history.read_history(run)[-1]["ended"] == "diverged"


def test_without_an_earlier_step_a_run_ends(world, tmp_path, bad_records):
    with pytest.raises(Diverged, match="there is no checkpoint yet"):
        train(config_of(world, rollbacks=3, checkpoint_every=50), tmp_path / "run")
