"""Batches as a pure function of (seed, stream, step): a Grain graph with random access and no state of its own.

Example ``i`` of a stream depends on the seed, the stream's name and ``i`` alone, and step ``k`` holds examples
``k * batch_size`` up to ``(k + 1) * batch_size`` in this order. A host reads the rows that its devices hold. So workers,
hosts and restarts change nothing, and any step is reached at once.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, cast

import grain
import numpy as np
from absl import flags

from vlbeit_jax.config import DataConfig, StreamConfig
from vlbeit_jax.data.examples import MakeExample
from vlbeit_jax.data.kept_tokens import KeptTokens, WithTokens
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet, Records, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind, Stream

Batches = grain.DatasetIterator  # Of dicts of arrays; close() it when done.
KINDS = {Stream.IMAGE: (Kind.IMAGES, Kind.PAIRS), Stream.TEXT: (Kind.TOKENS,), Stream.PAIR: (Kind.PAIRS,)}


@dataclasses.dataclass(frozen=True)
class Share:
    """The rows of every batch that a host reads, because its devices hold them.

    Attributes:
      blocks: which of the equal parts of a batch, in rising order.
      of: how many parts there are.
    """

    blocks: tuple[int, ...] = (0,)
    of: int = 1

    def rows(self, batch_size: int) -> int:
        """Rows of a global batch that fall to this host."""
        if batch_size % self.of:
            raise UsageError(
                f"batch_size={batch_size} is not a multiple of the {self.of} parts that it is cut into; change data.*.batch_size"
            )
        return batch_size // self.of * len(self.blocks)


class _Shared(grain.MapDataset):
    """The examples of a share, batch after batch."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, share: Share):
        super().__init__(parent)
        self._examples, self._batch_size, self._share, self._rows = parent, batch_size, share, share.rows(batch_size)

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * self._rows

    def __getitem__(self, index: int) -> Any:
        step, row = divmod(index, self._rows)
        size = self._batch_size // self._share.of
        block, place = divmod(row, size)
        return self._examples[step * self._batch_size + self._share.blocks[block] * size + place]


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
                f"{found.folder} holds no validation records ({dict(found.meta['counts'])}); prepare it with a --validation_share "
                "above 0, or set run.evaluate_every=0"
            )


def training_batches(
    name: Stream,
    stream: StreamConfig,
    data: DataConfig,
    make: MakeExample,
    seed: int,
    start: int = 0,
    share: Share = Share(),
    kept: Sequence[KeptTokens] = (),
) -> Batches:
    """This host's rows of the stream's batches ``start``, ``start + 1``, ..., without end.

    ``kept`` are the visual tokens of each set, where they are not computed in the step.
    """
    sets = open_sources(name, stream, make.tokenizer.fingerprint if make.tokenizer else "")
    records = [found.records(TRAIN) for found in sets]
    if kept:
        records = [WithTokens(each, tokens) for each, tokens in zip(records, kept, strict=True)]
    parts = [
        grain.MapDataset.source(cast(Sequence, each)).seed(_seed(seed, name, found.fingerprint)).shuffle().repeat()
        for each, found in zip(records, sets, strict=True)
    ]
    weights = stream.weights or [found.count(TRAIN) for found in sets]
    examples = grain.MapDataset.mix(parts, [float(weight) for weight in weights]).seed(_seed(seed, name)).random_map(make)
    rows = _Shared(examples, stream.batch_size, share).batch(share.rows(stream.batch_size), drop_remainder=True)
    return _iterate(rows[start:], data)


def evaluation_batches(
    records: Records,
    make: MakeExample,
    batch_size: int,
    seed: int,
    draws: int = 1,
    batches: int = 0,
    share: Share = Share(),
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
      share: this host's part.
      data: threads and processes.
    """
    padded = _Padded(records, draws, batch_size)
    examples = grain.MapDataset.source(padded).seed(seed).random_map(make)
    rows = _Shared(examples, batch_size, share).batch(share.rows(batch_size), drop_remainder=True)
    return _iterate(rows[:batches] if batches else rows, data)


def every_view(records: Records, which: range, make: MakeExample, batch_size: int, data: DataConfig) -> Batches:
    """Arrays of ``batch_size`` images: all views of some records in order; the last batch is filled up with the last view."""
    views = grain.MapDataset.source(cast(Sequence, _Views(records, which, make, batch_size)))
    return _iterate(views.batch(batch_size), data)


class _Views:
    def __init__(self, records: Records, which: range, make: MakeExample, multiple: int):
        self._records, self._which, self._make = records, which, make
        self._real = len(which) * make.stream.views
        self._length = -(-self._real // multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        record, number = divmod(min(index, self._real - 1), self._make.stream.views)
        return self._make.view(self._records[self._which[record]], number)


class _Padded:
    """Records repeated, then the first one with weight 0 up to a multiple of the batch."""

    def __init__(self, records: Records, draws: int, multiple: int):
        self._records, self._real = records, len(records) * draws
        self._length = -(-self._real // multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        real = index < self._real
        return dict(self._records[index % len(self._records) if real else 0], weight=float(real))


def _iterate(rows: grain.MapDataset, data: DataConfig) -> Batches:
    """Reads ahead in threads, and in processes of their own when asked to; the order is the same."""
    if data.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads a flag of its own, which exists unparsed outside absl.app.
    batches = rows.to_iter_dataset(grain.ReadOptions(num_threads=data.read_threads, prefetch_buffer_size=data.prefetch))
    if data.workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
    return iter(batches)


def _seed(*parts: Any) -> int:
    """Thirty-two bits from a hash, so that neighbouring seeds and streams share nothing."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
