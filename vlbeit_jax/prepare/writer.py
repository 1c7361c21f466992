"""Writes prepared data sets: ArrayRecord shards, TFDS metadata and a description, published in one rename."""

import collections
import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from vlbeit_jax.data.source import META_FILE, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.types import Kind

FEATURES = {
    Kind.IMAGES: {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(None, None, 3))},
    Kind.PAIRS: {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, 3)),
        "captions": tfds.features.Sequence(tfds.features.Text()),
    },
    Kind.TEXTS: {"id": tfds.features.Text(), "text": tfds.features.Text()},
    Kind.TOKENS: {"id": tfds.features.Text(), "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32)},
}


def split_of(text: str, validation_share: float) -> str:
    """Train or validation, by a hash of the normalised text: equal captions never stand on both sides."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    place = int.from_bytes(hashlib.sha256(normal.encode()).digest()[:8], "big") / 2**64
    return VALIDATION if place < validation_share else TRAIN


def write_set(
    out: pathlib.Path, kind: Kind, records: Iterable[tuple[str, dict[str, Any]]], *, shards: int, meta: dict[str, Any]
) -> dict[str, Any]:
    """Writes ``(split, record)`` pairs as a data set that ``tfds.builder_from_directory(out)`` opens.

    Nothing stands at ``out`` until all of it does. ``meta`` may still be filled in while ``records`` is consumed.

    Returns:
      What was written to ``vlbeit_meta.json``: ``meta`` with kind, counts per split and a fingerprint of the shards.

    Raises:
      UsageError: ``out`` exists, or there was no record at all.
    """
    with published(out) as folder:
        features = tfds.features.FeaturesDict(FEATURES[kind])
        writers = _Shards(folder, kind, features, shards)
        for split, record in records:
            writers.write(split, record)
        splits = writers.close()
        if not splits:
            raise UsageError(f"no record was left to write to {out}; dropped: {meta.get('dropped', {})}")
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=splits,
            filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            check_data=False,
            description=meta.get("source", ""),
            license=meta.get("licence", ""),
        )
        counts = {info.name: sum(info.shard_lengths) for info in splits}
        meta = {"format": 1, "kind": str(kind), **meta, "counts": counts, "fingerprint": _fingerprint(folder)}
        (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n")
    return meta


class _Shards:
    """Open shard files; records go round-robin within a split."""

    def __init__(self, folder: pathlib.Path, kind: Kind, features: tfds.features.FeaturesDict, shards: int):
        self._folder, self._name, self._features, self._shards = folder, str(kind), features, shards
        self._serializer = ExampleSerializer(cast(Any, features.get_serialized_info()))
        self._writers: dict[tuple[str, int], ArrayRecordWriter] = {}
        self._lengths: collections.Counter = collections.Counter()
        self._bytes: collections.Counter = collections.Counter()

    def _path(self, split: str, shard: int) -> pathlib.Path:
        return self._folder / f"{self._name}-{split}.array_record-{shard:05d}-of-{self._shards:05d}"

    def write(self, split: str, record: dict[str, Any]) -> None:
        total = sum(self._lengths[split, shard] for shard in range(self._shards))
        place = (split, total % self._shards)
        if place not in self._writers:
            self._writers[place] = ArrayRecordWriter(str(self._path(*place)), "group_size:1")
        encoded = self._serializer.serialize_example(self._features.encode_example(record))
        self._writers[place].write(encoded)
        self._lengths[place] += 1
        self._bytes[split] += len(encoded)

    def close(self) -> list[tfds.core.SplitInfo]:
        """Ends the files; a split with fewer records than shards gets empty ones, because the names count them."""
        splits = sorted({split for split, _ in self._writers})
        for split in splits:
            for shard in range(self._shards):
                writer = self._writers.get((split, shard)) or ArrayRecordWriter(str(self._path(split, shard)), "group_size:1")
                writer.close()
        template = tfds.core.ShardedFileTemplate(data_dir=epath.Path(self._folder), dataset_name=self._name, filetype_suffix="array_record")
        return [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[self._lengths[split, shard] for shard in range(self._shards)],
                num_bytes=self._bytes[split],
                filename_template=template.replace(split=split),
            )
            for split in splits
        ]


def _fingerprint(folder: pathlib.Path) -> str:
    """Twelve hex digits over names and contents of the shards."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.array_record-*")):
        with path.open("rb") as content:
            digest.update(path.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]
