"""The records of a step."""

from collections.abc import Mapping, Sequence

from vlbeit_jax.data.examples.base import record_id
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.runtime.run import Run


def record_ids(
    run: Run, examples: Mapping[str, Examples], step: int
) -> Mapping[str, Sequence[str]]:
    """Returns the ids of the records of all hosts in a step, by stream.

    Examples that a task makes itself have none.

    Args:
      run: that took the step.
      examples: of each stream.
      step: number of the step, from 1.
    """
    ids, streams = {}, run.task.streams()
    for name in run.schedule.streams_at(step - 1):
        each, size = examples[name], streams[name].batch_size
        if isinstance(each, TrainingExamples):
            first = run.schedule.used_before(name, step - 1) * size
            ids[name] = [record_id(each.record(first + row)) for row in range(size)]
    return ids
