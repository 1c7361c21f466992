"""The data in the package: opened by TFDS alone, small, and cleanly divided."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vlbeit_jax.data.content import fingerprint_of
from vlbeit_jax.data.identity import KEYS, TEXTS, picture_digest
from vlbeit_jax.data.keys import KeyCollector, keys_of
from vlbeit_jax.data.source import SAMPLE_FOLDER, TRAIN, VALIDATION, open_set
from vlbeit_jax.types import Kind

COUNTS = {"pairs": 3307, "texts": 161}


def every(found, split):
    records = found.records(split)
    return [records[index] for index in range(len(records))]


@pytest.mark.parametrize("name", COUNTS)
def test_tfds_opens_it_without_us(name):
    builder = tfds.builder_from_directory(str(SAMPLE_FOLDER / name))
    assert sum(split.num_examples for split in builder.info.splits.values()) == COUNTS[name]
    record = builder.as_data_source(VALIDATION)[0]
    assert record["image"].shape[-1] == 3 if name == "pairs" else record["text"]


@pytest.mark.parametrize("name", COUNTS)
def test_it_states_its_licence_and_counts(name):
    found = open_set(f"sample:{name}", Kind(name))
    assert (
        "public domain" in found.meta["licence"]
        and sum(found.meta["counts"].values()) == COUNTS[name]
    )
    assert (found.folder / "LICENSE").is_file()


@pytest.mark.parametrize("name", COUNTS)
def test_it_holds_what_it_says(name):
    """The fingerprint and the keys that are stated, computed again from every record."""
    found = open_set(f"sample:{name}")
    splits = {split: every(found, split) for split in (TRAIN, VALIDATION)}
    assert fingerprint_of(found.kind, splits) == found.meta["fingerprint"]
    keys = KeyCollector()
    for split, records in splits.items():
        for number, record in enumerate(records):
            keys.add(split, number, keys_of(record))
            assert "sha256" not in record or record["sha256"].decode() == picture_digest(
                record["image"]
            )
    for (what, split), wanted in keys.sorted().items():
        assert np.array_equal(found.keys(what, split), wanted)


def test_no_picture_and_no_text_stands_in_both_parts():
    for name, kinds in (("pairs", KEYS), ("texts", (TEXTS,))):
        found = open_set(f"sample:{name}")
        for what in kinds:
            one, other = found.keys(what, TRAIN)[0], found.keys(what, VALIDATION)[0]
            assert min(len(one), len(other)) > 10 and not np.intersect1d(one, other).size
    parts = [
        {
            caption.decode().casefold()
            for record in every(open_set("sample:pairs"), split)
            for caption in record["captions"]
        }
        for split in (TRAIN, VALIDATION)
    ]
    assert len(parts[1]) > 100 and parts[0].isdisjoint(parts[1])  # As it reads, too.


def test_its_records_name_their_files():
    for name, wanted in (("pairs", r"\d{9}\.jpg"), ("texts", r"speeches\.txt")):
        assert all(
            re.fullmatch(wanted, record["source"].decode())
            for record in every(open_set(f"sample:{name}"), VALIDATION)
        )


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.rglob("*") if path.is_file()) < 20e6
