"""Reads records that hold strings and nothing else, in a third of the time that TFDS takes.

TFDS decodes any nesting of tensors. Most sets here have only strings: pictures, captions, names.
Its general way takes a tenth of the pipeline's time for a photograph.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vlbeit_jax.data.records import Records


class StringRecords:
    """Records of strings, with the values that TFDS gives."""

    def __init__(self, raw: Any, names: Mapping[str, bool]):
        """Takes serialised records, and the names of the features, True for lists of strings."""
        # Not where a record is read: several threads read records, and TFDS may block for ever if
        # two threads import it at once.
        from tensorflow_datasets.proto import tf_example_pb2

        messages: Any = tf_example_pb2  # The import makes them, so that no checker knows them.
        self._raw, self._names = raw, dict(sorted(names.items()))
        self._parse = messages.Example.FromString

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> dict[str, Any]:
        features = self._parse(self._raw[index]).features.feature
        return {
            name: list(features[name].bytes_list.value)
            if is_list
            else features[name].bytes_list.value[0]
            for name, is_list in self._names.items()
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # ArrayRecord raises a ValueError beyond the last record, which would not end a loop.
        return (self[index] for index in range(len(self)))

    def __reduce__(self):
        """Loader processes import TFDS when they receive the records."""
        return StringRecords, (self._raw, self._names)


def with_fast_strings(records: Any, features: Any) -> Records:
    """Returns records that are read faster if they hold strings alone.

    Args:
      records: TFDS's data source, which leaves pictures encoded.
      features: of the set.
    """
    from tensorflow_datasets import features as kinds

    names = {}
    for name, feature in features.items():
        is_list = type(feature) is kinds.Sequence and type(feature.feature) is kinds.Text
        if not is_list and type(feature) not in (kinds.Text, kinds.Image):
            return records
        names[name] = is_list
    return StringRecords(records.data_source, names)
