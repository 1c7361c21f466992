"""Prepared texts and a text tokenizer, made once."""

import pytest

from tests.make_data import build_texts, documents, train_tokenizer


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    return build_texts(
        tmp_path_factory.mktemp("prepared"), "texts", documents(40), validation_share=0.2
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, texts):
    return train_tokenizer(tmp_path_factory.mktemp("trained"), "tokenizer", [texts])
