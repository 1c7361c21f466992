"""Batches as a pure function of (seed, stream, step), with random access and no state of its own.

Example ``i`` of a stream depends on the seed, the stream's name and ``i`` alone, and step ``k`` holds examples
``k * batch_size`` up to ``(k + 1) * batch_size`` in this order. A host reads the rows that its devices hold. So workers,
hosts and restarts change nothing, and any step is reached at once.

Which record an example is made of, and what is drawn for it, is defined in ``data.order`` and ``data.draws``. Grain reads
ahead, in threads and processes, and decides nothing.
"""

from collections.abc import Sequence
from typing import Any, cast

import grain
import numpy as np
from absl import flags

from vlbeit_jax.config import DataConfig, StreamConfig
from vlbeit_jax.data.cached_tokens import CachedTokens, WithTokens
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples import Example, MakeExample
from vlbeit_jax.data.order import Epochs, Interleave
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet, Records, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.types import Kind, Stream

Batches = grain.DatasetIterator  # Of dicts of arrays; close() it when done.
ENDLESS = 2**40  # Steps; Grain wants to know a length.
KINDS = {
    Stream.IMAGE: (Kind.IMAGES, Kind.PAIRS),
    Stream.TEXT: (Kind.TOKENS,),
    Stream.PAIR: (Kind.PAIRS,),
}


def open_sources(name: Stream, stream: StreamConfig, fingerprint: str = "") -> list[PreparedSet]:
    """The prepared sets of a stream, checked to be of the right kind, tokenizer and row length."""
    sets = [open_set(place, *KINDS[name]) for place in stream.sources]
    for found in sets:
        if found.kind is Kind.TOKENS:
            if found.meta["text_tokenizer"] != fingerprint:
                raise UsageError(
                    f"{found.folder} was packed with text tokenizer {found.meta['text_tokenizer']}, but data.text_tokenizer is "
                    f"{fingerprint}; pack the texts again with python -m vlbeit_jax.prepare --kind=tokens"
                )
            if found.meta["length"] != stream.text_length:
                raise UsageError(
                    f"{found.folder} holds rows of {found.meta['length']} pieces, but data.{name}.text_length={stream.text_length}"
                )
    return sets


def require_validation(sets: Sequence[PreparedSet]) -> None:
    """Raises a ``UsageError`` for a set without held-back records."""
    for found in sets:
        if not found.count(VALIDATION):
            raise UsageError(
                f"{found.folder} holds no validation records ({dict(found.meta['counts'])}, left out: "
                f"{found.meta.get('left_out') or 'none'}); prepare it with a larger --validation_share, or set run.evaluate_every=0"
            )


def training_batches(
    name: Stream,
    stream: StreamConfig,
    data: DataConfig,
    make: MakeExample,
    seed: int,
    start: int = 0,
    shard: HostShard = HostShard(),
    cached: Sequence[CachedTokens] = (),
) -> Batches:
    """This host's rows of the stream's batches ``start``, ``start + 1``, ..., without end.

    ``cached`` are the visual tokens of each set, where they are not computed in the step.
    """
    sets = open_sources(name, stream, make.tokenizer.fingerprint if make.tokenizer else "")
    records = [found.records(TRAIN) for found in sets]
    if cached:
        records = [WithTokens(each, tokens) for each, tokens in zip(records, cached, strict=True)]
    weights = stream.weights or [found.count(TRAIN) for found in sets]
    orders = [
        Epochs(len(records[number]), seed, name.value, number, found.fingerprint)
        for number, found in enumerate(sets)
    ]
    rows = shard.rows(stream.batch_size)
    return _iterate(
        _Training(
            records,
            orders,
            Interleave(weights),
            make,
            (seed, name.value),
            stream.batch_size,
            rows,
            start,
        ),
        data,
    )


class _Training:
    """Batches from a step on; each is computed when it is asked for."""

    def __init__(
        self,
        records: Sequence[Records],
        orders: Sequence[Epochs],
        sources: Interleave,
        make: MakeExample,
        key: tuple[int, str],
        batch_size: int,
        rows: Sequence[int],
        start: int,
    ):
        self._records, self._orders, self._sources, self._make, self._key = (
            records,
            orders,
            sources,
            make,
            key,
        )
        self._batch_size, self._rows, self._start = batch_size, rows, start

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first = (self._start + index) * self._batch_size
        return _stacked([self._example(first + row) for row in self._rows])

    def _example(self, number: int) -> Example:
        source, position = self._sources[number]
        record = self._records[source][self._orders[source][position]]
        return self._make(record, Draws("training", *self._key, number))


def evaluation_batches(
    records: Records,
    make: MakeExample,
    batch_size: int,
    seed: int,
    draws: int = 1,
    batches: int = 0,
    shard: HostShard = HostShard(),
    data: DataConfig = DataConfig(),
) -> Batches:
    """Every record ``draws`` times, each with its own mask; the last batch is filled up with rows of weight 0.

    Args:
      records: a split of a prepared set.
      make: makes examples without augmentation.
      batch_size: rows over all hosts.
      seed: decides the masks.
      draws: passes over the records.
      batches: stop after so many; 0: all.
      shard: this host's rows.
      data: threads and processes.
    """
    return _iterate(
        _Evaluation(records, make, batch_size, seed, draws, batches, shard.rows(batch_size)), data
    )


class _Evaluation:
    """Batches over records repeated, then the first one with weight 0 up to a multiple of the batch."""

    def __init__(
        self,
        records: Records,
        make: MakeExample,
        batch_size: int,
        seed: int,
        draws: int,
        batches: int,
        rows: Sequence[int],
    ):
        self._records, self._make, self._seed = records, make, seed
        self._real, self._batch_size, self._rows = len(records) * draws, batch_size, rows
        whole = -(-self._real // batch_size)
        self._batches = min(batches, whole) if batches else whole

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return _stacked([self._example(index * self._batch_size + row) for row in self._rows])

    def _example(self, number: int) -> Example:
        real = number < self._real
        record = self._records[number % len(self._records) if real else 0]
        return self._make(
            {**record, "weight": float(real)}, Draws("evaluation", self._seed, number)
        )


def every_view(
    records: Records, which: range, make: MakeExample, batch_size: int, data: DataConfig
) -> Batches:
    """Arrays of ``batch_size`` images: all views of some records in order; the last batch is filled up with the last view."""
    return _iterate(_Views(records, which, make, batch_size), data)


class _Views:
    def __init__(self, records: Records, which: range, make: MakeExample, batch_size: int):
        self._records, self._which, self._make, self._batch_size = records, which, make, batch_size
        self._real = len(which) * make.stream.views

    def __len__(self) -> int:
        return -(-self._real // self._batch_size)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "B size size 3"]:
        first = index * self._batch_size
        return np.stack(
            [
                self._view(min(number, self._real - 1))
                for number in range(first, first + self._batch_size)
            ]
        )

    def _view(self, number: int) -> UInt8[np.ndarray, "size size 3"]:
        record, view = divmod(number, self._make.stream.views)
        return self._make.view(self._records[self._which[record]], view)


def _stacked(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Examples of one shape as a batch."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _iterate(batches: Any, data: DataConfig) -> Batches:
    """Reads ahead in threads, and in processes of their own when asked to; the order is that of ``batches``."""
    if data.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads a flag of its own, which exists unparsed outside absl.app.
    options = grain.ReadOptions(num_threads=data.read_threads, prefetch_buffer_size=data.prefetch)
    ahead = grain.MapDataset.source(cast(Sequence, batches)).to_iter_dataset(options)
    if data.workers:
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
    return iter(ahead)
