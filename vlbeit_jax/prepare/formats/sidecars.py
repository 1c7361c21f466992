"""What img2dataset writes beside its shards: the fate of each link."""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence

GIVEN, ALIVE = "given", "alive"
FAILED = ("failed_to_download", "failed_to_resize")
STATS = "_stats.json"
# Of TFDS and of Hugging Face.
DESCRIPTIONS = ("dataset_info.json", "dataset_dict.json", "state.json", "features.json")
SHARDS = (".tar", ".tfrecord", "")  # What a table of links may lie beside; a folder has no suffix.


def is_sidecar(path: pathlib.Path) -> bool:
    """Returns whether a file describes a shard beside it, and holds no examples."""
    if path.name.endswith(STATS) or path.name in DESCRIPTIONS:
        return True
    if path.suffix != ".parquet":
        return False
    return any(path.with_suffix(suffix).exists() for suffix in SHARDS)


def stats_of(shard: pathlib.Path) -> Mapping[str, int]:
    """Returns how many links a shard was given, how many are alive, and how the others failed.

    Empty if img2dataset left no file that says so.
    """
    path = shard.with_name(shard.name.partition(".")[0] + STATS)
    try:
        stats = json.loads(path.read_bytes())
        counts = {GIVEN: int(stats["count"]), ALIVE: int(stats["successes"])}
        return counts | {name: int(stats[name]) for name in FAILED}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # It is another program's file, or there is none.


def links_of(shards: Sequence[pathlib.Path]) -> dict[str, int]:
    """Returns the sums of ``stats_of``."""
    total: collections.Counter[str] = collections.Counter()
    for shard in shards:
        total.update(stats_of(shard))
    return dict(total)
