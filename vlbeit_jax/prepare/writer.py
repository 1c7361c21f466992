"""Writes prepared data sets: shards, TFDS metadata, keys and a description."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from vlbeit_jax.data.content import ContentFingerprint, record_digest
from vlbeit_jax.data.identity import picture_digest
from vlbeit_jax.data.keys import KeyCollector, Keys, keys_of
from vlbeit_jax.data.shards import facts_of
from vlbeit_jax.data.source import IN_TURN
from vlbeit_jax.folders import published
from vlbeit_jax.prepare.encoding import Encoder
from vlbeit_jax.prepare.parts import sha256_of
from vlbeit_jax.prepare.set_files import describe_set, nothing_written, require_keys_apart
from vlbeit_jax.types import Kind

# source: path of the file that a record came from, within its archive or below the inputs' common
# folder. sha256: of the picture's file as it was found, which is another than ``image`` where that
# was encoded again.
IMAGE = {
    "id": tfds.features.Text(),
    "source": tfds.features.Text(),
    "sha256": tfds.features.Text(),
    "image": tfds.features.Image(shape=(None, None, 3)),
}
TEXT = {
    "id": tfds.features.Text(),
    "source": tfds.features.Text(),
    "text": tfds.features.Text(),
}
# The records of one group are in one split, and a bootstrap draws them together.
GROUP = {"group": tfds.features.Text()}
LABEL = {"label": tfds.features.Text()}  # Name of a class; the description lists all of them.
FEATURES = {
    Kind.IMAGES: IMAGE,
    Kind.PAIRS: IMAGE | {"captions": tfds.features.Sequence(tfds.features.Text())},
    Kind.TEXTS: TEXT,
    Kind.TOKENS: {
        "id": tfds.features.Text(),
        "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32),
    },
    Kind.LABELLED_IMAGES: IMAGE | GROUP | LABEL,
    Kind.LABELLED_TEXTS: TEXT | GROUP | LABEL,
    Kind.QUESTIONS: IMAGE
    | GROUP
    | {
        "text": tfds.features.Text(),
        "answers": tfds.features.Sequence(tfds.features.Text()),
    },
    # statement: what the records of one statement have in common (``data.identity``).
    Kind.STATEMENTS: IMAGE
    | GROUP
    | {
        "second_sha256": tfds.features.Text(),
        "second_image": tfds.features.Image(shape=(None, None, 3)),
        "text": tfds.features.Text(),
        "truth": tfds.features.Scalar(np.bool_),
        "statement": tfds.features.Text(),
    },
    # mask: a grey PNG of the picture's size; 255 where a pixel does not count.
    Kind.MASKS: IMAGE | GROUP | {"mask": tfds.features.Image(shape=(None, None, 1))},
}


def write_set(
    out: pathlib.Path,
    kind: Kind,
    records: Iterable[tuple[str, dict[str, Any]]],
    *,
    shards: int,
    meta: dict[str, Any],
    keys: Mapping[tuple[str, str], Keys] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes ``(split, record)`` pairs so that ``tfds.builder_from_directory`` opens them.

    Nothing stands at ``out`` until all of it does. ``meta`` may still be filled in while
    ``records`` is consumed.

    Args:
      out: the folder to make.
      kind: what records hold.
      records: with the fields of ``FEATURES``; a picture without ``sha256`` was stored as it was
        found.
      shards: files per split.
      meta: what the description is to say besides.
      keys: of what the records were made of, by kind of key and split, where the records do not
        tell.
      more: TFDS features by name, of what records hold besides the fields of their kind.

    Returns:
      What was written to ``vlbeit_meta.json``: ``meta`` with format, kind, counts and numbers of
      keys per split, and a fingerprint of the content.

    Raises:
      UsageError: ``out`` exists, or there was no record at all.
      ValueError: a picture is in two splits, or a text in training and another one.
    """
    with published(out) as folder:
        features = tfds.features.FeaturesDict({**FEATURES[kind], **(more or {})})
        writers = _Shards(folder, kind, features, shards)
        collected, content, counts = KeyCollector(), ContentFingerprint(kind), collections.Counter()
        for split, record in records:
            if "image" in features and "sha256" not in record:
                record = record | {"sha256": picture_digest(record["image"])}
            digest = record_digest(record)
            writers.write(split, record, digest)
            content.add_digest(split, digest)
            collected.add(split, counts[split], keys_of(record))
            counts[split] += 1
        files = writers.close()
        if not counts:
            raise nothing_written(out, meta)
        keys = collected.sorted() if keys is None else keys
        require_keys_apart(keys)
        described = {name: shard.described(folder / name) for name, shard in files.items()}
        return describe_set(
            folder,
            kind,
            features,
            dict(meta),
            keys=keys,
            counts=dict(sorted(counts.items())),
            fingerprint=content.hexdigest(),
            shards=described,
            order=IN_TURN,
        )


@dataclasses.dataclass
class _Shard:
    """An open file: its records, their bytes and the hash of their content."""

    writer: ArrayRecordWriter
    records: int = 0
    size: int = 0
    content: Any = dataclasses.field(default_factory=hashlib.sha256)

    @classmethod
    def opened(cls, path: pathlib.Path) -> "_Shard":
        return cls(ArrayRecordWriter(str(path), "group_size:1"))

    def described(self, path: pathlib.Path) -> dict[str, Any]:
        return {
            "records": self.records,
            "bytes": self.size,
            "sha256": sha256_of(path),
            "content_sha256": self.content.hexdigest(),
            **facts_of(path),
        }


class _Shards:
    """Open shard files; records go round-robin within a split."""

    def __init__(
        self, folder: pathlib.Path, kind: Kind, features: tfds.features.FeaturesDict, shards: int
    ):
        self._folder, self._name, self._shards = folder, str(kind), shards
        self._encoder = Encoder(features)
        self._open: dict[tuple[str, int], _Shard] = {}
        self._totals: collections.Counter[str] = collections.Counter()

    def _path(self, split: str, shard: int) -> pathlib.Path:
        return self._folder / f"{self._name}-{split}.array_record-{shard:05d}-of-{self._shards:05d}"

    def write(self, split: str, record: dict[str, Any], digest: bytes) -> None:
        place = (split, self._totals[split] % self._shards)
        self._totals[split] += 1
        if place not in self._open:
            self._open[place] = _Shard.opened(self._path(*place))
        shard, encoded = self._open[place], self._encoder.encode(record)
        shard.writer.write(encoded)
        shard.records += 1
        shard.size += len(encoded)
        shard.content.update(digest)

    def close(self) -> dict[str, _Shard]:
        """Ends the files and returns them by name.

        A split with fewer records than shards gets empty files, whose names state how many there
        are.
        """
        written = {}
        for split in sorted({split for split, _ in self._open}):
            for number in range(self._shards):
                path = self._path(split, number)
                shard = self._open.get((split, number)) or _Shard.opened(path)
                shard.writer.close()
                written[path.name] = shard
        return written
