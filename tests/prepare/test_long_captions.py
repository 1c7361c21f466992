"""Captions that are too long are named with file, line and record, if --length says what is."""

import pytest

from tests.prepare.test_jsonl import fields, prepare
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

LONG = "red blue green " * 9


def test_a_caption_that_is_too_long_is_named(world, tmp_path):
    tokenizer = TextTokenizer(world.text_tokenizer)
    pieces = len(tokenizer.encode(LONG.strip())) + 2
    rows = [
        {"id": "short", "image": 0, "captions": ["red"]},
        {"id": "long", "image": 1, "captions": ["blue", LONG]},
    ]
    said = rf"mine.jsonl:2: record 'long': its caption 2 has {pieces} word pieces with CLS and SEP"
    with pytest.raises(UsageError, match=rf"{said}, more than --length={pieces - 1}: 'red blue"):
        prepare(tmp_path, Kind.PAIRS, rows, fits=Fits(tokenizer, pieces - 1))
    assert not (tmp_path / "set").exists()
    prepare(tmp_path, Kind.PAIRS, rows, fits=Fits(tokenizer, pieces))
    assert set(fields(tmp_path)) == {"short", "long"}


def test_crawls_count_them_and_what_is_wrong_already_stays_so(world):
    tokenizer = TextTokenizer(world.text_tokenizer)
    fits = Fits(tokenizer, len(tokenizer.encode("red")) + 2)
    assert fits(Item("a", captions=(LONG,))).fault == "caption_too_long"
    assert fits(Item("a", captions=("red",))).fault == ""
    assert fits(Item("a", captions=(LONG,), place="a:1", fault="lost")).fault == "lost"
