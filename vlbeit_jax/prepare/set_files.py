"""What is beside the shards of a prepared set: keys, TFDS metadata and the description."""

import contextlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vlbeit_jax.data.identity import KEYS, SPLITS, TEXTS, TRAIN
from vlbeit_jax.data.keys import NONE, Keys, common, keys_file
from vlbeit_jax.data.source import FORMAT, META_FILE, ONE_AFTER_ANOTHER
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


def describe_set(
    folder: pathlib.Path,
    kind: Kind,
    features: tfds.features.FeaturesDict,
    meta: dict[str, Any],
    *,
    keys: Mapping[tuple[str, str], Keys],
    counts: Mapping[str, int],
    fingerprint: str,
    shards: Mapping[str, Mapping[str, Any]],
    order: str = ONE_AFTER_ANOTHER,
) -> dict[str, Any]:
    """Writes what is beside the shards of a set: keys, TFDS metadata and the description.

    Args:
      folder: of the set; the shards are in it, or in a bucket.
      kind: what records hold.
      features: of the records.
      meta: further entries of the description.
      keys: by kind of key and split.
      counts: records by split.
      fingerprint: of the content.
      shards: by the name of each file: records, bytes and hashes.
      order: of the records: IN_TURN or ONE_AFTER_ANOTHER of ``data.source``.

    Returns:
      The description.
    """
    _write_tfds_metadata(folder, str(kind), features, counts, shards, meta)
    meta = {
        "format": FORMAT,
        "kind": str(kind),
        **meta,
        "counts": dict(counts),
        "keys": _write_keys(folder, keys),
        "fingerprint": fingerprint,
        "shard_order": order,
        "shards": shards,
    }
    (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n")
    return meta


def _write_tfds_metadata(
    folder: pathlib.Path,
    name: str,
    features: tfds.features.FeaturesDict,
    counts: Mapping[str, int],
    shards: Mapping[str, Mapping[str, Any]],
    meta: Mapping[str, Any],
) -> None:
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=name, filetype_suffix="array_record"
    )
    splits = []
    for split in counts:
        of_split = [
            shard for file, shard in sorted(shards.items()) if file.startswith(f"{name}-{split}.")
        ]
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard["records"] for shard in of_split],
                num_bytes=sum(shard["bytes"] for shard in of_split),
                filename_template=template.replace(split=split),
            )
        )
    with _names_seen(folder, shards):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=splits,
            filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            check_data=False,
            description=meta.get("source", ""),
            license=meta.get("licence", ""),
        )


@contextlib.contextmanager
def _names_seen(folder: pathlib.Path, names: Iterable[str]) -> Iterator[None]:
    """Lets TFDS see the names of shards that are in a bucket already; it reads nothing else."""
    absent = [folder / name for name in names if not (folder / name).exists()]
    for path in absent:
        path.touch()
    yield
    for path in absent:
        path.unlink()


def nothing_written(out: pathlib.Path, meta: Mapping[str, Any]) -> UsageError:
    """Returns the error of a set without records."""
    gone = "; ".join(
        f"{name}: {dict(meta[name])}" for name in ("dropped", "left_out") if meta.get(name)
    )
    why = f"; {gone}" if gone else ": the input held none"
    return UsageError(f"no record was left to write to {out}{why}")


def require_keys_apart(keys: Mapping[tuple[str, str], Keys]) -> None:
    """Raises a ValueError if a picture or text is in two splits, whoever placed it."""
    for what, (held, other) in itertools.product(KEYS, itertools.combinations(SPLITS[::-1], 2)):
        # Two held-out splits may share a text: no model is trained on either of them.
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
    for (what, split), array in sorted(keys.items()):
        np.save(keys_file(folder, what, split), array)
        counts.setdefault(split, {})[what] = array.shape[1]
    return counts
