"""What ends a run, and what is saved before it ends, with steps in plain Python."""

import signal

import pytest

from tests.runtime.plain_steps import Feed, Lines, Saves, checkpoint, loop
from vlbeit_jax import progress
from vlbeit_jax.data.bad_records import BadRecord
from vlbeit_jax.errors import BadData, Exit
from vlbeit_jax.runtime import signals
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.hooks.evaluate import Abandoned, Evaluate, Evaluator, due_after
from vlbeit_jax.runtime.hooks.stop import Stop
from vlbeit_jax.runtime.timer import Timer


class Press(Hook):
    """Sends signals to this process during one step."""

    def __init__(self, *numbers):
        self.numbers, self.ended = numbers, 0

    def after_step(self, step, state, ending):
        if step == 2:
            for number in self.numbers:
                signal.raise_signal(number)
            self.ended = step


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([signal.SIGINT], "interrupted"),
        ([signal.SIGTERM] * 2, "preempted"),
        ([signal.SIGINT, signal.SIGTERM], "interrupted"),
        ([signal.SIGHUP], "preempted"),
    ],
    ids=["ctrl-c", "term", "both", "hang-up"],
)
def test_a_signal_ends_the_run_after_the_next_step_which_is_saved(sent, reason, monkeypatch):
    # Under nohup it is ignored, and stays so.
    monkeypatch.setattr(signals.signal, "SIG_IGN", object())
    before = [signal.getsignal(number) for number in signals.CODES]
    saves = Saves()
    with signals.noted():
        stop = Stop(lambda own: own, lambda: False)
        state, ending = loop([stop, Press(*sent), checkpoint(saves, 100)], steps=9)
    assert (state.step, ending, saves.steps) == (3, reason, [3])
    assert before == [signal.getsignal(number) for number in signals.CODES]


def test_a_second_ctrl_c_does_not_wait():
    saves, keys = Saves(), Press(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals.noted():
        loop([Stop(lambda own: own, lambda: False), keys, checkpoint(saves, 100)], steps=9)
    assert keys.ended == 0 and not saves.steps


def test_a_signal_is_kept_that_comes_just_as_a_compilation_begins(monkeypatch):
    """The thread has looked while signals were still noted; the handler runs a moment later."""
    monkeypatch.setattr(signals._state, "listening", True)
    with signals.noted():
        with signals.at_once():
            signals._note(signal.SIGTERM, None)
        assert signals.asked() is Exit.PREEMPTED
    assert signals.asked() is None


def late(answers=(0,)):
    """As processes agree: each call answers what the call before was asked."""
    asked = list(answers)

    def agree(own):
        asked.append(own)
        return asked[-2]

    return agree


def saved_before(evaluators, saves):
    return Checkpoint(
        saves,
        lambda step: {"step": step},
        Timer(1.0),
        100,
        before=lambda step: bool(due_after(step, evaluators)),
        alone=True,
    )


def test_a_signal_abandons_an_evaluation_whose_step_is_saved():
    saves, lines, scored = Saves(), Lines(), []

    def run(state, frozen):
        for number in progress.counted(range(5), "scoring", "batches"):
            scored.append(number)
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
        return {"score": 1.0}

    with signals.noted():
        stop = Stop(late(), lambda: False)
        evaluators = [Evaluator("", 2, run)]
        evaluate = Evaluate(evaluators, None, lines, Timer(1.0), stopping=stop.signalled)
        with pytest.raises(Abandoned) as raised:
            loop([stop, saved_before(evaluators, saves), evaluate], steps=9)
    assert scored == [0, 1, 2] and not lines.lines and saves.steps == [2] and saves.waited
    assert (raised.value.step, raised.value.reason) == (2, "preempted")


def test_a_step_is_saved_before_its_evaluation_fails():
    def run(state, frozen):
        raise BadData("a held-out record")

    saves, evaluators = Saves(), [Evaluator("", 3, run)]
    evaluate = Evaluate(evaluators, None, Lines(), Timer(1.0))
    with pytest.raises(BadData):
        loop([saved_before(evaluators, saves), evaluate], steps=9)
    assert saves.steps == [3] and saves.waited


class Ends(Feed):
    """Two batches, then an error that only this process has."""

    def __next__(self):
        if self.given == 2:
            raise BadRecord("bad_text", "record 7")
        return super().__next__()


@pytest.mark.parametrize(("every", "saved"), [(100, [2]), (2, [2])], ids=["new", "saved already"])
def test_a_step_is_saved_before_its_data_fail_unless_others_have_to_save_it(every, saved):
    for alone in (True, False):
        saves = Saves()
        save = Checkpoint(saves, lambda step: {"step": step}, Timer(1.0), every, alone=alone)
        with pytest.raises(BadData, match="stream image, step 3: .* record 7"):
            loop([save], steps=9, feeds={"image": Ends()})
        assert saves.steps == (saved if alone or every == 2 else [])


def test_a_save_is_due_after_minutes_and_once(monkeypatch):
    """Although the answer of all processes comes one call late, or during an evaluation."""
    now, saves = [0.0], Saves()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop = Stop(late(), lambda: save.is_due())
    save = Checkpoint(
        saves,
        lambda step: {"step": step},
        Timer(1.0),
        100,
        minutes=1,
        asked=stop.agreed_to_save,
    )

    class Clock(Hook):
        def after_step(self, step, state, ending):
            now[0] += 25
            if step == 9:
                stop.signalled()

    loop([stop, Clock(), save], steps=12)
    assert saves.steps == [5, 10, 12]
