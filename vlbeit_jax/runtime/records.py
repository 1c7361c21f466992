"""The records of a step."""

from collections.abc import Mapping, Sequence

from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.runtime.run import Run


def record_ids(run: Run, step: int) -> Mapping[str, Sequence[str]]:
    """Returns the ids of the records of all hosts in a step, by stream.

    Examples that a task makes itself have none.

    Args:
      run: that took the step.
      step: number of the step, from 1.
    """
    found: dict[str, list[str]] = {}
    streams = run.task.streams()
    for name in run.schedule.streams_at(step - 1):
        examples, size = run.data.examples(name), streams[name].batch_size
        if isinstance(examples, TrainingExamples):
            first = run.schedule.used_before(name, step - 1) * size
            ids = (examples.record(first + row)["id"] for row in range(size))
            found[name] = [each.decode() if isinstance(each, bytes) else each for each in ids]
    return found
