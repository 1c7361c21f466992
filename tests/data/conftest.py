"""Prepared sets, a text tokenizer, and what a stream over them takes; made once."""

import pytest

from tests.make_data import build_pairs, build_texts, documents, train_tokenizer
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.prepare.pack import pack_texts

BATCH = 8


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def texts(folder):
    return build_texts(folder, "texts", documents(60))


@pytest.fixture(scope="session")
def tokenizer(folder, texts):
    return train_tokenizer(folder, "tokenizer", [texts])


@pytest.fixture(scope="session")
def tokens(folder, texts, tokenizer):
    pack_texts(folder / "tokens", [str(texts)], tokenizer, 32)
    return folder / "tokens"


@pytest.fixture(scope="session")
def pairs(folder):
    return build_pairs(folder, "pairs", 60)


@pytest.fixture(scope="session")
def few_pairs(folder):
    return build_pairs(folder, "few_pairs", 20, first=1000)


@pytest.fixture(scope="session")
def held_out(folder):
    """103 pairs, all of them for validation."""
    return build_pairs(folder, "held_out", 103, first=2000, validation_share=1)


@pytest.fixture(scope="session")
def setting(pairs, tokens, tokenizer):
    """Config and example maker of a stream."""

    def make(name, augment=True, **changed):
        image = {"num_masked_patches": 6, "mask_block": 2}
        text = {"text_length": 32, "masked_text": 0.5}
        sources = (str(tokens if name == "text" else pairs),)
        values = {"sources": sources, "batch_size": BATCH} | changed
        stream = {
            "image": lambda: ImageStreamConfig(**image | values),
            "text": lambda: TextStreamConfig(**text | values),
            "pair": lambda: PairStreamConfig(**image | text | values),
        }[name]()
        pieces = tokenizer if isinstance(stream, TextStreamConfig) else None
        return stream, MaskedExample(stream, 16, 4, pieces, augment)

    return make
