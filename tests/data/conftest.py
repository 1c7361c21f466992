"""Prepared sets and a text tokenizer, made once."""

import pytest

from tests.make_data import build_pairs, build_texts, documents, train_tokenizer
from vlbeit_jax.prepare.build import pack_texts


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
def held_back(folder):
    """103 pairs, all of them for validation."""
    return build_pairs(folder, "held_back", 103, first=2000, validation_share=1)
