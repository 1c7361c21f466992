"""The packaged sample: later versions must read the same bits."""

import re

import jax
import numpy as np
import pytest

import vlbeit_jax
from tests import tiny
from tests.convert.conftest import write_random_run
from tools.pack_model import pack
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import SAMPLE_FOLDER
from vlbeit_jax.training.saved_run import tree_fingerprint

# Of the release that first had them. Another value breaks what users have built on the sample.
WEIGHTS, VISUAL, TEXT = "3489ae03b9c8", "1053be4d5043", "5fd04a039c56"


@pytest.fixture(scope="module")
def sample():
    return vlbeit_jax.load("sample", compilation_cache="")


def test_weights_and_tokenizers_are_those_of_the_release(sample):
    assert tree_fingerprint(sample._params) == WEIGHTS
    assert sample._visual.fingerprint == VISUAL
    assert sample._text.fingerprint == TEXT
    assert sample.step == 4400


def test_it_is_small_and_names_no_machine():
    files = [path for path in SAMPLE_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    for path in files:
        assert not re.search(rb'"/[a-z]{2,}/', path.read_bytes()), path


def test_its_own_picture_tells_more_of_a_masked_word_than_another_one(sample):
    """Over held-out pairs: .18 nats in the mean, with a standard error of .1."""
    records, gains = open_set("sample:pairs").records("validation"), []
    for number in range(80):
        *words, last = records[number]["captions"][0].decode().split(" ")
        piece = sample._text.piece(sample._text.encode(last)[0])
        text = " ".join([*words, "<mask>"])
        own, other = (
            dict(sample.fill_mask(text, decode(records[each]["image"]), top=2000)[0])[piece]
            for each in (number, number + 7)
        )
        gains.append(np.log(own / other))
    assert 0.15 < np.mean(gains) < 0.22


def test_a_packed_run_is_the_run_rounded_to_float16(world, tmp_path):
    config = tiny.pretrain_config(world, steps=1)
    run = write_random_run(tmp_path / "run", config, world)
    pack(run, tmp_path / "packed")
    model, packed = (
        vlbeit_jax.load(tmp_path / name, compilation_cache="") for name in ("run", "packed")
    )
    for name in ("vision_head", "text_embed"):
        pairs = zip(_leaves(packed._params[name]), _leaves(model._params[name]), strict=True)
        for found, own in pairs:
            np.testing.assert_array_equal(found, own.astype(np.float16).astype(np.float32))
    assert str(world.pairs.parent) not in (tmp_path / "packed" / "config.json").read_text()
    with pytest.raises(UsageError, match="exists already"):
        pack(run, tmp_path / "packed")


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
