"""Lists on the command line: plain text or a Python tuple, once or several times."""

import sys

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from vlbeit_jax.config.lists import take_plain_lists


@pytest.fixture
def read(monkeypatch):
    """Reads the flags of a list of names and of a list of numbers."""
    types = dict(config_flags.config_flags._FIELD_TYPE_TO_PARSER)
    monkeypatch.setattr(config_flags.config_flags, "_FIELD_TYPE_TO_PARSER", types)

    def read(name, *values):
        config, found = ConfigDict({"names": ("old",), "shares": ()}), flags.FlagValues()
        arguments = ["command", *(f"--config.{name}={value}" for value in values)]
        monkeypatch.setattr(sys, "argv", arguments)
        config_flags.DEFINE_config_dict("config", config, flag_values=found)
        found(arguments)
        return config[name]

    return read


@pytest.mark.parametrize(
    "values, names",
    [
        (["data/a"], ("data/a",)),
        (["data/a,data/b"], ("data/a", "data/b")),
        (["text_embed/words,language_head/*"], ("text_embed/words", "language_head/*")),
        (["vision_head/*"], ("vision_head/*",)),
        (["my pictures/a, b"], ("my pictures/a", "b")),
        (["data/a", "data/b,c"], ("data/a", "data/b", "c")),
        (["('data/a', 'data/b')"], ("data/a", "data/b")),
        (["('with,comma',)"], ("with,comma",)),
        (["()"], ()),
        ([""], ()),
    ],
)
def test_names(read, values, names):
    take_plain_lists()
    assert read("names", *values) == names


@pytest.mark.parametrize("values", [["0.75,.25"], ["(0.75, 0.25)"], ["0.75", "0.25"]])
def test_numbers(read, values):
    take_plain_lists()
    assert read("shares", *values) == (0.75, 0.25)


def test_a_tuple_that_is_badly_written_is_refused(read):
    take_plain_lists()
    with pytest.raises(flags.IllegalFlagValueError, match="Error while parsing"):
        read("names", "('a', 'b'")


def test_without_the_parser_the_documented_flag_is_refused(read):
    """The control: this is what ml_collections alone makes of it."""
    with pytest.raises(flags.IllegalFlagValueError, match="Error while parsing"):
        read("names", "text_embed/words,language_head/*")
