"""Prepared sets whose records were damaged after they were prepared."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from tests.make_data import encoded, png_header, sentence
from vlbeit_jax.data.identity import picture_digest
from vlbeit_jax.data.shards import facts_of
from vlbeit_jax.data.source import META_FILE, TRAIN
from vlbeit_jax.prepare.encoding import Encoder
from vlbeit_jax.prepare.writer import FEATURES, write_set
from vlbeit_jax.types import Kind

COUNT, SHARDS = 24, 2
# Numbers of records, what they become, and the reason under which they are counted.
KINDS_OF_DAMAGE: dict[int, tuple[dict[str, Any], str]] = {
    2: ({"image": b"<html>gone</html>"}, "undecodable_image"),
    5: ({"image": png_header(12_000, 12_000)}, "image_too_large"),
    8: ({"captions": [b"\xff\xfe broken"]}, "bad_text"),
    9: ({"captions": []}, "no_caption"),  # The record behind it cannot be used either.
    10: ({"image": b"\x89PNG\r\n\x1a\n cut"}, "undecodable_image"),
    23: ({"image": b""}, "undecodable_image"),  # The last one; record 0 takes its place.
}
FLIPPED = 15
REASONS = {number: reason for number, (_, reason) in KINDS_OF_DAMAGE.items()}
REASONS[FLIPPED] = "unreadable"


def noise(seed: int) -> bytes:
    """A picture that no compression of the file makes smaller, so that it is found in there."""
    rng = np.random.default_rng(seed)
    return encoded(rng.integers(0, 256, (40, 40, 3), np.uint8))


def record(number: int) -> dict[str, Any]:
    return {
        "id": f"pair/{number}",
        "source": f"{number}.png",
        "image": noise(number),
        "captions": [sentence(number), sentence(number + 100)],
    }


def damaged_pair(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns a good set and a damaged one with its description."""
    good, bad = folder / "good", folder / "bad"
    records = [record(number) for number in range(COUNT)]
    write_set(good, Kind.PAIRS, [(TRAIN, each) for each in records], shards=SHARDS, meta={})
    shutil.copytree(good, bad)
    encoder = Encoder(tfds.features.FeaturesDict(FEATURES[Kind.PAIRS]))
    files = [bad / f"pairs-train.array_record-{i:05d}-of-{SHARDS:05d}" for i in range(SHARDS)]
    for shard, file in enumerate(files):
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for number in range(shard, COUNT, SHARDS):
            each, (what, _) = records[number], KINDS_OF_DAMAGE.get(number, ({}, ""))
            digest = {"sha256": picture_digest(each["image"])}
            writer.write(encoder.encode(each | digest | what))
        writer.close()
    flip(files[FLIPPED % SHARDS], noise(FLIPPED))
    meta = json.loads((good / META_FILE).read_text())
    for name in meta["shards"]:
        meta["shards"][name] |= facts_of(bad / name)  # Else the start of a run would refuse it.
    (bad / META_FILE).write_text(json.dumps(meta))
    return good, bad


def flip(path: pathlib.Path, content: bytes) -> None:
    """Changes a bit where a file holds some content."""
    whole = bytearray(path.read_bytes())
    place = whole.find(content[1000:1032])
    assert place > 0, "compressed"
    whole[place] ^= 1
    path.write_bytes(whole)
