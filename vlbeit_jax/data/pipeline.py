"""From examples to batches: cutting rows for hosts, stacking and reading ahead, for every task.

Step ``k`` takes examples ``k * batch_size`` up to ``(k + 1) * batch_size``, in this order. Which
example has which number is up to ``data.sampling``. Grain reads ahead in threads and processes, and
decides nothing.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from absl import flags

from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.data import loader_process
from vlbeit_jax.data.bad_records import Replaced, refuse
from vlbeit_jax.data.examples.base import Example
from vlbeit_jax.data.shard import HostShard

Batch = dict[str, np.ndarray]
OnReplaced = Callable[[Sequence[Replaced]], Any]
_REPLACED = "replaced"  # Entry of a batch on its way from a loader process, in JSON.
# Grain takes 0.2 seconds to import, and whoever only opens a model reads no batches.
if TYPE_CHECKING:
    import grain


@runtime_checkable
class Examples(Protocol):
    """Random access to examples of equal shapes; see ``data.sampling``."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Example:
        """Returns one example."""
        ...


@runtime_checkable
class Replacing(Protocol):
    """Examples some of which may be made of another record than the one whose turn it is."""

    def replacing(self, index: int) -> tuple[Example, Replaced | None]:
        """Returns an example, and what was wrong with the record whose turn it was."""
        ...


class Batches:
    """An iterator over this host's rows of batches; close() it when done."""

    def __init__(self, ahead: "grain.DatasetIterator", on_replaced: OnReplaced):
        self._ahead, self._on_replaced = ahead, on_replaced

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        batch = next(self._ahead)
        if (said := batch.pop(_REPLACED, None)) is not None:
            self._on_replaced([Replaced(*each) for each in json.loads(said.tobytes())])
        return batch

    def close(self) -> None:
        """Ends the threads and processes that read ahead."""
        self._ahead.close()


def batches(
    examples: Examples,
    batch_size: int,
    start: int = 0,
    shard: HostShard = HostShard(),
    loader: LoaderConfig = LoaderConfig(),
    on_replaced: OnReplaced = refuse,
) -> Batches:
    """Iterates over this host's rows of batches ``start``, ``start + 1``, ... of some examples.

    A remainder that fills no batch is left out; ``PadRecords`` avoids one.

    Args:
      examples: of one stream.
      batch_size: rows over all hosts.
      start: first batch.
      shard: which rows this host reads.
      loader: threads, processes and batches read ahead.
      on_replaced: called before a batch is returned with those of its examples whose record cannot
        be used; by default the first one raises a ``BadRecord``.

    Raises:
      UsageError: the batch cannot be divided over the devices.
    """
    import grain

    source = _Batches(examples, batch_size, start, shard.rows(batch_size))
    # Grain defines a flag, and reads it in loader processes. A program that does not parse flags,
    # such as a notebook or a test, has to mark it as parsed.
    if loader.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(
        num_threads=loader.read_threads, prefetch_buffer_size=loader.prefetch
    )
    ahead = grain.MapDataset.source(cast(Sequence, source)).to_iter_dataset(options)
    if loader.workers:
        processes = grain.MultiprocessingOptions(num_workers=loader.workers)
        ahead = ahead.mp_prefetch(processes, loader_process.begin)
    return Batches(iter(ahead), on_replaced)


class _Batches:
    """Random access to batches, each computed when it is asked for."""

    def __init__(self, examples: Examples, batch_size: int, start: int, rows: Sequence[int]):
        self._examples, self._batch_size, self._start = examples, batch_size, start
        self._rows = rows

    def __len__(self) -> int:
        return max(len(self._examples) // self._batch_size - self._start, 0)

    def __getitem__(self, index: int) -> Batch:
        first = (self._start + index) * self._batch_size
        if not isinstance(self._examples, Replacing):
            return _stacked([self._examples[first + row] for row in self._rows])
        rows, replaced = zip(
            *(self._examples.replacing(first + row) for row in self._rows), strict=True
        )
        batch = _stacked(rows)
        if bad := [each for each in replaced if each]:
            batch[_REPLACED] = np.frombuffer(json.dumps(bad).encode(), np.uint8)
        return batch


def _stacked(rows: Sequence[Example]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
