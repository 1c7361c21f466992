"""Makes up for an evaluation that the start before has not finished.

A run saves a step before it evaluates it, so an evaluation that fails or is killed costs no
training. The next start resumes at that step, and its figures are still to be computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.runtime.hooks.base import FINISHED
from vlbeit_jax.runtime.hooks.evaluate import (
    VALIDATION,
    VALIDATION_EMA,
    Evaluate,
    Written,
    due_after,
)
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.training.state import TrainState


def evaluate_if_missing(run: Run, state: TrainState, writer: Writer, timer: Timer) -> None:
    """Evaluates the step at which a run resumes, if that is due and its figures are missing."""
    step = int(state.step)
    evaluators = run.opened.evaluators(run.data, run.place)
    # Every process decides as the primary does, which has written the file. Without any line the
    # user has removed it.
    lines = read_metrics(run.workdir)
    answers = run.hosts.gathered([bool(lines), written_at(step, lines, evaluators)])[0]
    has_lines, written = answers[0], [Written(*each) for each in answers[1]]
    ema = bool(run.config.optimizer.ema_decay)
    ending = FINISHED if step == run.config.run.steps else None
    splits = (VALIDATION, VALIDATION_EMA) if ema else (VALIDATION,)
    due = {
        Written(each.name, split)
        for each in due_after(step, evaluators, ending)
        for split in splits
    }
    if not has_lines or due <= set(written):
        return
    writer.say(f"step {step:,} was not evaluated to the end; that is done now")
    frozen = put_replicated(run.opened.frozen, run.mesh)
    evaluate = Evaluate(evaluators, frozen, writer, timer, ema=ema, written=written)
    evaluate.after_step(step, state, ending)


def written_at(
    step: int, lines: Sequence[Mapping[str, Any]], evaluators: Sequence[Evaluator]
) -> list[Written]:
    """Returns which figures of a step there are.

    Args:
      step: that was evaluated.
      lines: of ``metrics.jsonl``. An evaluator's name begins each of its figures; one of them may
        have no name.
      evaluators: of the run.
    """
    names = [each.name for each in evaluators if each.name]
    written = []
    for line in lines:
        if line["step"] == step and line["split"] in (VALIDATION, VALIDATION_EMA):
            of = [name for name in names if any(key.startswith(f"{name}/") for key in line)]
            written.append(Written(of[0] if of else "", line["split"]))
    return written
