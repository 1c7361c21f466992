"""Records to the bytes that ArrayRecord files hold, and back."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2


class Encoder:
    """Encodes records of some features in the same way in every process."""

    def __init__(self, features: tfds.features.FeaturesDict):
        """Takes the features of all records."""
        self._features = features
        self._serializer = ExampleSerializer(cast(Any, features.get_serialized_info()))

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Returns the bytes of a record."""
        example = self._serializer.get_tf_example(self._features.encode_example(record))
        # Otherwise the order of the fields would differ from process to process.
        return example.SerializeToString(deterministic=True)

    def decode(self, encoded: bytes) -> dict[str, Any]:
        """Returns the record of some bytes; its texts are strings, its pictures are bytes."""
        example: Any = cast(Any, tf_example_pb2).Example.FromString(encoded)
        record: dict[str, Any] = {}
        for name, feature in self._features.items():
            entry = example.features.feature[name]
            values: list[Any] = list(entry.bytes_list.value) or list(entry.int64_list.value)
            if not isinstance(feature, tfds.features.Image):
                values = [each.decode() if isinstance(each, bytes) else each for each in values]
            if isinstance(feature, tfds.features.Sequence):
                record[name] = values
            elif feature.np_dtype == np.bool_:
                record[name] = bool(values[0])
            else:
                record[name] = values[0] if values else ""
        return record
