"""Texts: lines, documents between blank lines, JSON documents, WikiExtractor's output."""

import gzip
import json
import random

import pytest

from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import base, lines, text
from vlbeit_jax.prepare.formats.base import BadInput


def test_without_blank_lines_each_line_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes("erste Zeile ä\n third \r\nlast\n\n".encode())
    (tmp_path / "b.txt").write_bytes(b"")
    found = Reading("text", tmp_path / "a.txt", tmp_path / "b.txt")
    assert found.texts == ["erste Zeile ä", "third", "last"]
    assert len({item.key for item in found.items}) == 3
    assert all(item.key.startswith("a/") for item in found.items)


def test_blank_lines_separate_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\none\ntwo\n\n \nthree\n\nfour")
    found = Reading("text", path)
    assert found.texts == ["one\ntwo", "three", "four"] and found.plan.items == 3
    assert [item.key for item in found.items] == ["a/00000001", "a/00000005", "a/00000007"]
    assert "--documents=line" in found.plan.notes[0]
    assert len(Reading("text", path, documents="line").texts) == 4
    path.write_text("one\ntwo\n")
    assert Reading("text", path, documents="blank_line").texts == ["one\ntwo"]
    with pytest.raises(UsageError, match="--documents=page"):
        Reading("text", path, documents="page")


@pytest.mark.parametrize("between", [False, True])
def test_units_of_a_file_give_what_the_whole_file_gives(tmp_path, monkeypatch, between):
    draw = random.Random(0)
    documents = [
        "\n".join(f"{number} {'w' * draw.randint(1, 30)}" for _ in range(1 + between))
        for number in range(200)
    ]
    path = tmp_path / "a.txt"
    path.write_text(("\n\n" if between else "\n").join(documents))
    whole = Reading("text", path)
    assert len(whole.plan.units) == 1 and whole.texts == documents
    monkeypatch.setattr(text, "UNIT_TEXT", 300)
    parts = Reading("text", path)
    assert len(parts.plan.units) > 10 and parts.items == whole.items


@pytest.mark.parametrize(
    "content",
    ["utf-16 ä".encode("utf-16"), "latin ä".encode("latin-1"), b"fine\n" * 9999 + b"\xff\n"],
    ids=len,
)
def test_text_of_another_encoding_is_refused(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match="a.txt: not UTF-8"):
        Reading("text", tmp_path / "a.txt")


def test_small_files_are_one_unit_and_keep_their_paths(tmp_path):
    paths = [tmp_path / "en" / "wiki.v2.txt", tmp_path / "de" / "wiki.txt"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("a document\n")
    found = Reading("text", *paths)
    assert [item.source for item in found.items] == ["en/wiki.v2.txt", "de/wiki.txt"]
    found = Reading("wikiextractor", *_wiki(tmp_path, 30))
    (unit,) = found.plan.units
    assert len(unit.extra["paths"]) == 30 and len(found.texts) == 30
    assert len({item.key for item in found.items}) == 30


def _wiki(folder, count):
    for number in range(count):
        path = folder / f"wiki_{number:02}"
        path.write_text(f'<doc id="{number}" url="u" title="A &amp; B">\nA & B\n\nT &lt;\n</doc>\n')
        yield path


def test_wikiextractor_drops_titles_and_tags(tmp_path):
    (path,) = _wiki(tmp_path, 1)
    assert Reading("wikiextractor", path).texts == ["T <"]
    path.write_text(path.read_text()[:-8])
    with pytest.raises(BadInput, match="no </doc>"):
        Reading("wikiextractor", path)


def test_json_documents_are_cut_at_lines_and_faults_are_counted(tmp_path, monkeypatch):
    rows = [{"text": f"document {number}" + "w" * (number % 17)} for number in range(300)]
    content = [json.dumps(row) for row in rows]
    content[7:7] = ["{", '{"title": "none"}', '["list"]', '{"text": ["two", "parts"]}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(content))
    whole = Reading("json", path, kind="texts")
    assert whole.texts == [
        *(row["text"] for row in rows[:7]),
        "two\nparts",
        *(row["text"] for row in rows[7:]),
    ]
    assert whole.faults == {"bad_line": 2} and [item.text for item in whole.items].count("") == 1
    monkeypatch.setattr(lines, "UNIT_TEXT", 500)
    monkeypatch.setattr(base, "UNIT_TEXT", 500)
    parts = Reading("json", path, kind="texts")
    assert len(parts.plan.units) > 10 and parts.items == whole.items
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed = Reading("json", tmp_path / "b.json.gz", kind="texts")
    assert packed.texts == whole.texts and len(packed.plan.units) == 1
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
    with pytest.raises(BadInput, match="cannot be read to its end"):
        Reading("json", tmp_path / "c.json.gz", kind="texts")


def test_documents_with_an_address_are_links_for_pairs_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"url": "http://a.example/b", "text": "words"}\n')
    assert Reading("json", path, kind="texts").texts == ["words"]
    with pytest.raises(UsageError, match="--input_format=jsonl --url_col=url --caption_col=text"):
        Reading("json", path, kind="pairs")
