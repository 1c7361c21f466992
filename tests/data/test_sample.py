"""The data in the package: opened by TFDS alone, small, and cleanly divided."""

import pytest
import tensorflow_datasets as tfds

from vlbeit_jax.data.source import SAMPLE_FOLDER, TRAIN, VALIDATION, open_set
from vlbeit_jax.types import Kind

COUNTS = {"pairs": 3447, "texts": 161}


@pytest.mark.parametrize("name", COUNTS)
def test_tfds_opens_it_without_us(name):
    builder = tfds.builder_from_directory(str(SAMPLE_FOLDER / name))
    assert sum(split.num_examples for split in builder.info.splits.values()) == COUNTS[name]
    record = builder.as_data_source(VALIDATION)[0]
    assert record["image"].shape[-1] == 3 if name == "pairs" else record["text"]


@pytest.mark.parametrize("name", COUNTS)
def test_it_states_its_licence_and_counts(name):
    found = open_set(f"sample:{name}", Kind(name))
    assert "public domain" in found.meta["licence"] and sum(found.meta["counts"].values()) == COUNTS[name]
    assert (found.folder / "LICENSE").is_file()


def test_no_caption_stands_in_both_parts():
    found = open_set("sample:pairs")
    parts = []
    for split in (TRAIN, VALIDATION):
        records = found.records(split)
        parts.append({caption.decode().casefold() for index in range(len(records)) for caption in records[index]["captions"]})
    assert len(parts[1]) > 100 and parts[0].isdisjoint(parts[1])


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.rglob("*") if path.is_file()) < 20e6
