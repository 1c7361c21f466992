"""Records of strings are read as TFDS reads them; others are left to it."""

import pickle

import pytest
import tensorflow_datasets as tfds

from tests.make_data import build, encoded, picture, write_tar
from vlbeit_jax.data.source import TRAIN, _builder, open_set
from vlbeit_jax.data.strings import StringRecords, with_fast_strings
from vlbeit_jax.types import Kind


def both(place):
    """TFDS's records of a set, and ours."""
    builder = _builder(open_set(str(place)).folder)
    decoders = {
        name: tfds.decode.SkipDecoding()
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    slow = builder.as_data_source(TRAIN, decoders=decoders or None)
    return slow, with_fast_strings(slow, builder.info.features)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Pairs with one and with several captions, in several scripts."""
    folder, members = tmp_path_factory.mktemp("captioned"), []
    for i, caption in enumerate(["a cat", "東京", "пароход 7", "déjà vu"] * 3):
        members += [(f"{i:03d}.png", encoded(picture(i)))]
        members += [(f"{i:03d}.txt", f"{caption} {i}".encode())]
    tar = write_tar(folder / "pairs.tar", members)
    build(folder / "pairs", Kind.PAIRS, [tar], validation_share=0.0)
    return folder / "pairs"


@pytest.mark.parametrize("place", ["sample:emoji", "sample:texts", "sample:pairs", None])
def test_they_are_the_records_of_tfds(place, captioned):
    slow, fast = both(place or captioned)
    assert isinstance(fast, StringRecords) and len(fast) == len(slow) == len(list(fast))
    for index in {0, 1, len(slow) // 2, len(slow) - 1}:
        wanted, found = slow[index], pickle.loads(pickle.dumps(fast))[index]
        assert list(found) == sorted(wanted) and found == wanted
        assert {name: type(value) for name, value in found.items()} == {
            name: type(wanted[name]) for name in found
        }


def test_packed_rows_are_left_to_tfds(world):
    slow, fast = both(world.tokens)
    assert fast is slow
