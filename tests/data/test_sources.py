"""Sources that a stream cannot use are refused before any record is read; others are opened."""

import json

import pytest

from vlbeit_jax.data.source import META_FILE, TRAIN, VALIDATION, open_set
from vlbeit_jax.data.sources import open_sources, require_validation
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


def changed_meta(place, to, **changed):
    """A folder that describes itself differently."""
    meta = json.loads((place / META_FILE).read_text()) | changed
    to.mkdir()
    (to / META_FILE).write_text(json.dumps(meta))
    return str(to)


@pytest.mark.parametrize(
    "name, place, changed, said",
    [
        ("pair", "texts", {}, ["texts", "pairs"]),
        ("text", "texts", {}, ["texts", "tokens"]),
        ("image", "tokens", {}, ["tokens", "images", "pairs"]),
        ("text", "tokens", {"text_length": 64}, ["32", "64", "task.text.text_length"]),
        ("text", "other_tokens", {}, ["feedfeedfeed", "text tokenizer", "prepare"]),
        (
            "pair",
            "nowhere",
            {},
            ["nowhere", "does not exist", "vlbeit_jax.prepare", "sample:pairs"],
        ),
        (
            "pair",
            "empty",
            {},
            ["empty", "holds no vlbeit_meta.json", "vlbeit_jax.prepare --input="],
        ),
        ("text", "a.txt", {}, ["a.txt", "is a file, and a data set is a folder", "--input="]),
        ("pair", "sample:nothing", {}, ["sample:nothing", "sample:emoji", "sample:pairs"]),
    ],
)
def test_wrong_sources_are_refused(
    setting, tokenizer, texts, tokens, tmp_path, name, place, changed, said
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a document\n")
    places = {
        "texts": str(texts),
        "tokens": str(tokens),
        "nowhere": str(tmp_path / "nowhere"),
        "empty": str(tmp_path / "empty"),
        "a.txt": str(tmp_path / "a.txt"),
    }
    places["other_tokens"] = changed_meta(tokens, tmp_path / "other", text_tokenizer="feedfeedfeed")
    stream, _ = setting(name, sources=(places.get(place, place),), **changed)
    with pytest.raises(UsageError) as error:
        open_sources(name, stream, tokenizer.fingerprint)
    assert all(word in str(error.value) for word in said), error.value
    if place == "other_tokens":
        assert tokenizer.fingerprint in str(error.value)


def test_sets_of_an_older_format_are_refused(pairs, tmp_path):
    with pytest.raises(UsageError, match="format 1.*reads format 2.*prepare it again"):
        open_set(changed_meta(pairs, tmp_path / "old", format=1))


def test_good_sources_are_opened(setting, tokenizer, held_out):
    for name, kind in zip(
        ("image", "text", "pair"), (Kind.PAIRS, Kind.TOKENS, Kind.PAIRS), strict=True
    ):
        (found,) = open_sources(name, setting(name)[0], tokenizer.fingerprint)
        assert found.kind is kind and found.count(TRAIN) > 20
    sample = open_set("sample:pairs", Kind.PAIRS)
    assert len(sample.records(VALIDATION)) == sample.count(VALIDATION) > 0 and sample.contains == [
        sample.fingerprint
    ]


def test_no_validation_records_are_a_usage_error(pairs, held_out, tmp_path):
    require_validation([open_set(str(pairs)), open_set(str(held_out))])
    without = open_set(changed_meta(pairs, tmp_path / "without", counts={"train": 60}))
    with pytest.raises(UsageError, match="validation_share"):
        require_validation([open_set(str(pairs)), without])
    with pytest.raises(UsageError, match="no 'train' records.*103"):
        open_set(str(held_out)).records(TRAIN)
