"""The records of a step."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from vlbeit_jax.data.examples.base import record_id
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.runtime.run import Run


def record_ids(
    run: Run, examples: Mapping[str, Examples], step: int
) -> Mapping[str, Sequence[str]]:
    """Returns the ids of the records of all hosts in a step, by stream.

    Examples that a task makes itself have none. Only making an example tells of which record it is
    made, since a neighbour takes the place of a bad one. So the whole batch is made once more, in
    as many threads as the loader has, while the other processes wait: for each refused step, of
    which the run bears few (``run.refused_in_a_row``, ``run.refused_share``).

    Args:
      run: that took the step.
      examples: of each stream.
      step: number of the step, from 1.
    """
    found, streams, loader = {}, run.task.streams(), run.config.loader
    for name in run.schedule.streams_at(step - 1):
        each, size = examples[name], streams[name].batch_size
        if isinstance(each, TrainingExamples):
            first = run.schedule.used_before(name, step - 1) * size
            with ThreadPoolExecutor(max(loader.workers, 1) * loader.read_threads) as pool:
                records = pool.map(each.record, range(first, first + size))
                found[name] = [record_id(record) for record in records]
    return found
