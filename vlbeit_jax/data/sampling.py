"""Which example is number ``i``: endless for training, each record in turn for evaluation.

Example ``i`` of a training stream depends on the seed, the stream's name and ``i`` alone. So
workers, hosts and restarts change nothing, no iterator has to be saved, and any example is reached
at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.data.bad_records import UNREADABLE, BadRecord, Replaced, reason_of
from vlbeit_jax.data.cached_tokens import CachedTokens, WithTokens
from vlbeit_jax.data.contributions import Contribution, short_names
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import Example, Transform
from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.order import Epochs, Interleave
from vlbeit_jax.data.records import PadRecords, Records
from vlbeit_jax.data.source import TRAIN, PreparedSet
from vlbeit_jax.errors import StorageError

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
        opened = [each.records(TRAIN) for each in sets]
        self._records: list[Records] = list(opened)
        self._place = [each.place for each in opened]
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

    def __getitem__(self, index: int) -> Example:
        return self.replacing(index)[0]

    def replacing(self, index: int) -> tuple[Example, Replaced | None]:
        """Returns an example; and what was wrong, if another record had to take its record's place.

        It is the record behind it in its set, or the first of those at distances 2, 4, 8, ... that
        can be used. The example keeps its number and its draws, and all other examples are as they
        would be without the damage.

        Raises:
          BadRecord: none of these records can be used.
          StorageError: none can be read, so the storage may be away.
        """
        example, _, replaced = self._found(index)
        return example, replaced

    def record(self, index: int) -> Mapping[str, Any]:
        """Returns the record of which an example is made."""
        return self._found(index)[1]

    def _found(self, index: int) -> tuple[Example, Mapping[str, Any], Replaced | None]:
        """Returns an example, its record, and what was wrong with another one."""
        number, position = self._mixture[index]
        own = self._orders[number][position]
        made = self._made(number, own, index)
        if not isinstance(made, Exception):
            return *made, None
        place, count = self._place[number](own), len(self._records[number])
        said = str(made) if place in str(made) else f"{place}: {made}"
        replaced = Replaced(index, reason_of(made), said)
        reasons = [replaced.reason]
        for power in range(count.bit_length()):
            # A neighbour that cannot be used either is counted when its own turn comes.
            other = self._made(number, (own + 2**power) % count, index)
            if not isinstance(other, Exception):
                return *other, replaced
            reasons.append(reason_of(other))
        said += f"; {len(reasons) - 1} records behind it cannot be used either"
        if set(reasons) == {UNREADABLE}:
            raise StorageError(f"{said}; look whether the storage of the set is there") from made
        raise BadRecord(replaced.reason, said) from made

    def _made(
        self, number: int, record: int, index: int
    ) -> tuple[Example, Mapping[str, Any]] | BadRecord | UnicodeDecodeError:
        """Returns example ``index`` made of a record of a set, and the record; or what is wrong."""
        try:
            content = self._records[number][record]
            return self._transform(content, Draws("training", *self._key, index)), content
        except (BadRecord, UnicodeDecodeError) as error:
            return error  # Any other error is a defect of the program, which no neighbour mends.


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
