"""Writes prepared data sets: shards, TFDS metadata, keys and a description."""

import collections
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from vlbeit_jax.data.content import ContentFingerprint
from vlbeit_jax.data.identity import KEYS, SPLITS, TEXTS, TRAIN, picture_digest
from vlbeit_jax.data.keys import NONE, KeyCollector, Keys, common, keys_file, keys_of
from vlbeit_jax.data.source import FORMAT, META_FILE
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
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


def keys_of_any(split: str, record: Mapping[str, Any]) -> dict[str, list[int]]:
    """Returns the keys of a record."""
    return keys_of(record)


def keys_of_benchmark(split: str, record: Mapping[str, Any]) -> dict[str, list[int]]:
    """Returns the keys of a benchmark's record: of held-back pairs, those of the picture alone.

    A short caption such as "a man riding a wave" is in every part of COCO.
    """
    found = keys_of(record)
    if split != TRAIN and "captions" in record:
        del found[TEXTS]
    return found


def write_set(
    out: pathlib.Path,
    kind: Kind,
    records: Iterable[tuple[str, dict[str, Any]]],
    *,
    shards: int,
    meta: dict[str, Any],
    keys: Mapping[tuple[str, str], Keys] | None = None,
    more: Mapping[str, Any] | None = None,
    keyed: Callable[[str, Mapping[str, Any]], Mapping[str, list[int]]] = keys_of_any,
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
      keyed: from split and record to its keys.

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
            writers.write(split, record)
            content.add(split, record)
            collected.add(split, counts[split], keyed(split, record))
            counts[split] += 1
        splits = writers.close()
        if not splits:
            raise _nothing_written(out, meta)
        _write_tfds_metadata(folder, features, splits, meta)
        keys = collected.sorted() if keys is None else keys
        _require_apart(keys)
        meta = {
            "format": FORMAT,
            "kind": str(kind),
            **meta,
            "counts": dict(sorted(counts.items())),
            "keys": _write_keys(folder, keys),
            "fingerprint": content.hexdigest(),
        }
        (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n")
    return meta


def _write_tfds_metadata(
    folder: pathlib.Path,
    features: tfds.features.FeaturesDict,
    splits: list[tfds.core.SplitInfo],
    meta: Mapping[str, Any],
) -> None:
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
        description=meta.get("source", ""),
        license=meta.get("licence", ""),
    )


def _nothing_written(out: pathlib.Path, meta: Mapping[str, Any]) -> UsageError:
    gone = "; ".join(
        f"{name}: {dict(meta[name])}" for name in ("dropped", "left_out") if meta.get(name)
    )
    why = f"; {gone}" if gone else ": the input held none"
    return UsageError(f"no record was left to write to {out}{why}")


class _Shards:
    """Open shard files; records go round-robin within a split."""

    def __init__(
        self, folder: pathlib.Path, kind: Kind, features: tfds.features.FeaturesDict, shards: int
    ):
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
        example = self._serializer.get_tf_example(self._features.encode_example(record))
        # Maps are in no order otherwise, another one in every process.
        encoded = example.SerializeToString(deterministic=True)
        self._writers[place].write(encoded)
        self._lengths[place] += 1
        self._bytes[split] += len(encoded)

    def close(self) -> list[tfds.core.SplitInfo]:
        """Ends the files; a split with fewer records than shards gets empty files.

        The files' names state how many there are.
        """
        splits = sorted({split for split, _ in self._writers})
        for split in splits:
            for shard in range(self._shards):
                writer = self._writers.get((split, shard)) or ArrayRecordWriter(
                    str(self._path(split, shard)), "group_size:1"
                )
                writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(self._folder),
            dataset_name=self._name,
            filetype_suffix="array_record",
        )
        return [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[self._lengths[split, shard] for shard in range(self._shards)],
                num_bytes=self._bytes[split],
                filename_template=template.replace(split=split),
            )
            for split in splits
        ]


def _require_apart(keys: Mapping[tuple[str, str], Keys]) -> None:
    """Raises a ValueError if a picture or text is in two splits, whoever placed it."""
    for what, (held, other) in itertools.product(KEYS, itertools.combinations(SPLITS[::-1], 2)):
        # Nothing is trained on two held-back splits, and short captions occur in both.
        if what == TEXTS and TRAIN not in (held, other):
            continue
        both = common(keys.get((what, held), NONE), keys.get((what, other), NONE)[0])
        if both.shape[1]:
            raise ValueError(
                f"{both.shape[1]} {what} are in two splits, {held} and {other}, for "
                f"example that of {held} record "
                f"{int(both[1, 0])}"
            )


def _write_keys(
    folder: pathlib.Path, keys: Mapping[tuple[str, str], Keys]
) -> dict[str, dict[str, int]]:
    """Writes them beside the shards; how many there are, by split and kind of key."""
    counts: dict[str, dict[str, int]] = {}
    for (what, split), found in sorted(keys.items()):
        np.save(keys_file(folder, what, split), found)
        counts.setdefault(split, {})[what] = found.shape[1]
    return counts
