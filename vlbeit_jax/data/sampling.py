"""Which example is number ``i``: endless for training, each record in turn for evaluation.

Example ``i`` of a training stream depends on the seed, the stream's name and ``i`` alone. So
workers, hosts and restarts change nothing, no iterator has to be saved, and any example is reached
at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.data.cached_tokens import CachedTokens, WithTokens
from vlbeit_jax.data.contributions import Contribution, short_names
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import Example, Transform
from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.order import Epochs, Interleave
from vlbeit_jax.data.records import PadRecords, Records
from vlbeit_jax.data.source import TRAIN, PreparedSet

ENDLESS = 2**62  # More examples than any run takes; Grain needs a length that fits into 64 bits.


class TrainingExamples:
    """The endless examples of one stream: a mixture of sets, each in a new order every epoch."""

    def __init__(
        self,
        stream: str,
        sets: Sequence[PreparedSet],
        transform: Transform,
        *,
        seed: int,
        weights: Sequence[float] = (),
        cached: Sequence[CachedTokens] = (),
    ):
        """Opens the sets' training records.

        Args:
          stream: name of the stream; another one gives other orders and other draws.
          sets: whose training records are mixed.
          transform: makes an example of a record.
          seed: of the run.
          weights: share of each set; empty: by their number of records.
          cached: of each set, the visual tokens of its images; empty: none.

        Raises:
          UsageError: a set has no training records.
        """
        self._records: list[Records] = [each.records(TRAIN) for each in sets]
        # A set's fingerprint is part of its key, so that a set that was prepared again is not read
        # in the order of the old one. Its number has always been: without it, runs that resume
        # would go on in another order.
        self._orders = [
            Epochs(len(records), seed, stream, number, each.fingerprint)
            for number, (records, each) in enumerate(zip(self._records, sets, strict=True))
        ]
        if cached:
            self._records = [
                WithTokens(records, tokens)
                for records, tokens in zip(self._records, cached, strict=True)
            ]
        self._mixture = Interleave(weights or [each.count(TRAIN) for each in sets])
        self._transform, self._key = transform, (seed, stream)
        self._names = short_names([each.name for each in sets])

    def __len__(self) -> int:
        return ENDLESS

    def contributions(self, rows: int) -> list[Contribution]:
        """Returns what each set gave of the first ``rows`` examples."""
        counts = self._mixture.counts(rows)
        sets = enumerate(zip(self._names, self._records, strict=True))
        return [Contribution(name, counts[number], len(each)) for number, (name, each) in sets]

    def record(self, index: int) -> Mapping[str, Any]:
        """Returns the record of which an example is made."""
        number, position = self._mixture[index]
        return self._records[number][self._orders[number][position]]

    def __getitem__(self, index: int) -> Example:
        return self._transform(self.record(index), Draws("training", *self._key, index))


class EvaluationExamples:
    """Every record in turn, padded to whole batches; masks depend on the seed and the position."""

    def __init__(
        self,
        records: Records,
        transform: Transform,
        batch_size: int,
        *,
        seed: int,
        repeats: int = 1,
        max_batches: int = 0,
    ):
        """Pads the records.

        Args:
          records: a split of a prepared set, or several.
          transform: makes an example of a record, without augmentation.
          batch_size: over all hosts.
          seed: of the masks.
          repeats: examples of each record, each with masks of its own.
          max_batches: stop after so many batches; 0: take all.
        """
        self._records = PadRecords(records, batch_size, repeats)
        self._count = len(self._records)
        if max_batches:
            self._count = min(self._count, max_batches * batch_size)
        self._transform, self._seed = transform, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        return self._transform(self._records[index], Draws("evaluation", self._seed, index))


class ViewExamples:
    """All fixed views of some records, in order; the last view is repeated up to whole batches."""

    def __init__(self, records: Records, which: range, views: Views, batch_size: int):
        """Takes the records' numbers, and how views are made from them."""
        self._records, self._which, self._views = records, which, views
        self._real = len(which) * views.stream.views
        self._padded = -(-self._real // batch_size) * batch_size

    def __len__(self) -> int:
        return self._padded

    def __getitem__(self, index: int) -> Example:
        record, number = divmod(min(index, self._real - 1), self._views.stream.views)
        return {"image": self._views.fixed(self._records[self._which[record]], number)}
