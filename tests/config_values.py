"""Configurations that can be used, as dicts, and ways to change them."""

import pytest

from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import parse

TOKENIZERS = {"text_tokenizer": "T", "visual_tokenizer": "V"}
STREAMS = ("image", "text", "pair")
USABLE = {"task": {name: {"sources": ["sample:pairs"]} for name in STREAMS} | TOKENIZERS}
VQKD = {"task": {"kind": "vqkd", "image": {"sources": ["sample:pairs"]}}}


def merged(base, changed):
    """``base`` with some leaves changed or added."""
    both = dict(base)
    for key, value in changed.items():
        both[key] = (
            merged(both[key], value)
            if isinstance(value, dict) and isinstance(both.get(key), dict)
            else value
        )
    return both


def at(path, value):
    """{"a": {"b": value}} for "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def problems(values):
    with pytest.raises(UsageError) as error:
        parse(values)
    first, *rest = str(error.value).splitlines()
    assert first == "the configuration cannot be used:"
    return [line.strip() for line in rest]
