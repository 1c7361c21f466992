"""Formats are recognised by content, and a wrong one is answered with the right one."""

import gzip
import io
import json
import zipfile

import pytest
from PIL import Image

from tests.make_data import write_tar
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.detect import recognise
from vlbeit_jax.types import Kind


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def test_suffixes_mean_nothing(tmp_path):
    """Each file has the suffix of another format."""
    write_tar(tmp_path / "a.txt", [("0.jpg", b"x")])
    (tmp_path / "a.tar").write_text('{"image": "a.jpg", "caption": "c"}\n')
    (tmp_path / "a.csv").write_text("images/0.jpg\twords\n")
    (tmp_path / "a.parquet").write_text("image,caption\n0.jpg,words\n")
    (tmp_path / "a.png").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "a.json").write_text('{"image": "a.jpg", "captions": ["c"], "split": "train"}\n')
    found = {
        name: recognise("auto", [tmp_path / name], Kind.PAIRS)
        for name in ("a.txt", "a.tar", "a.csv", "a.parquet", "a.png", "a.json")
    }
    assert list(found.values()) == ["webdataset", "json", "tsv", "csv", "tsv", "jsonl"]
    (tmp_path / "a.xls").write_text("One document.\nAnother.\n")
    assert recognise("auto", [tmp_path / "a.xls"], Kind.TEXTS) == "text"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png(), "a picture; give the folder that holds it, with --format=folder"),
        (b"PK\x03\x04 and more", "zip archive; unpack it"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"<!DOCTYPE html><p>404", "a web page"),
        (b"<mediawiki>", "WikiExtractor"),
        ("ä text".encode("utf-16"), "UTF-16"),
        ("ä text".encode("latin-1"), "iconv"),
        (b'{"left": 1}\n', "--image_column"),
        (b"", "an empty file"),
        (b"http://a.example/0.jpg\n", "--input_format=txt"),
        (b"\x00\x01\x02\x03", "00 01 02 03"),
    ],
)
def test_what_is_not_recognised_is_described(tmp_path, content, said):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        recognise("auto", [tmp_path / "a"], Kind.PAIRS)
    assert said in str(caught.value)
    # Where the message says what it is, a list of all formats would only hide it.
    assert ("If it is one of these" in str(caught.value)) == content.startswith(b"\x00\x01")


@pytest.mark.parametrize(
    ("given", "content", "said"),
    [
        ("text", '{"text": "a document"}\n', "--format=json"),
        ("text", '<doc id="1" url="u" title="t">\nt\n', "--format=wikiextractor"),
        ("text", "http://a.example/1.jpg\twords\n", "--format=tsv"),
        ("text", "<html><p>words", "a web page"),
        ("text", "http://a.example/0.jpg\nhttp://a.example/1.jpg\n", "img2dataset"),
        ("webdataset", "a.jpg\twords\n", "--format=tsv"),
        ("webdataset", png(), "a picture"),
        ("csv", "0.jpg#0\tA dog .\n", "--format=flickr"),
    ],
)
def test_a_wrong_format_is_answered_with_the_right_one(tmp_path, given, content, said):
    path = tmp_path / "a"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="does not look like --format=") as caught:
        recognise(given, [path], Kind.TEXTS)
    assert said in str(caught.value)
    assert recognise(given, [path], Kind.TEXTS, force=True) == given


def test_the_strict_format_may_always_be_asked_for(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text"\n')
    assert recognise("jsonl", [tmp_path / "a.jsonl"], Kind.TEXTS) == "jsonl"
    assert recognise("auto", [tmp_path / "a.jsonl"], Kind.TEXTS) == "json"


def test_inputs_of_several_formats_are_refused_but_not_for_what_lies_beside(tmp_path):
    write_tar(tmp_path / "0.tar", [("0.jpg", b"x")])
    (tmp_path / "0_stats.json").write_text(json.dumps({"count": 1}))
    (tmp_path / "._0.tar").write_bytes(b"mac")
    paths = sorted(tmp_path.iterdir())
    assert recognise("auto", paths, Kind.PAIRS) == "webdataset"
    (tmp_path / "b.tsv").write_text("a.jpg\twords\n")
    with pytest.raises(UsageError, match="0.tar looks like webdataset; .*b.tsv looks like tsv"):
        recognise("auto", sorted(tmp_path.iterdir()), Kind.PAIRS)


def test_folders(tmp_path):
    pictures = tmp_path / "set"
    pictures.mkdir()
    (pictures / "0.jpg").write_bytes(b"x")
    assert recognise("auto", [pictures], Kind.IMAGES) == "folder"
    assert recognise("auto", [pictures], Kind.PAIRS) == "folder"
    (pictures / "index.tsv").write_text("0.jpg\twords\n")
    assert recognise("auto", [pictures], Kind.IMAGES) == "folder"
    with pytest.raises(
        UsageError, match="looks like the format tsv; name that file: --input=.*tsv"
    ):
        recognise("auto", [pictures], Kind.PAIRS)
    (pictures / "0.txt").write_text("words")
    assert recognise("auto", [pictures], Kind.PAIRS) == "folder"
    (pictures / "metadata.jsonl").write_text('{"file_name": "0.jpg", "text": "words"}\n')
    assert recognise("auto", [pictures], Kind.PAIRS) == "imagefolder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="an empty folder$"):
        recognise("auto", [tmp_path / "empty"], Kind.PAIRS)
    (pictures / "captions.token").write_text("0.jpg#0\twords\n")
    with pytest.raises(UsageError, match="--format=flickr reads a file; name it: .*captions.token"):
        recognise("flickr", [pictures], Kind.PAIRS)


def test_a_text_is_called_a_text_where_pictures_are_asked_for(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a text\n")
    with pytest.raises(UsageError, match="is plain text, which can become --kind=texts"):
        recognise("auto", [path], Kind.PAIRS)
    path.write_bytes("ein großer Text\n".encode("latin-1"))
    with pytest.raises(UsageError, match="an encoding that is not UTF-8"):
        recognise("auto", [path], Kind.PAIRS)


def test_a_format_that_cannot_give_the_kind_says_which_it_can(tmp_path):
    (tmp_path / "a.tsv").write_text("a.jpg\twords\n")
    with pytest.raises(UsageError, match="the format tsv, which can become --kind=images, pairs"):
        recognise("auto", [tmp_path / "a.tsv"], Kind.QUESTIONS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    with pytest.raises(UsageError, match="zip"):
        recognise("webdataset", [tmp_path / "a.zip"], Kind.PAIRS)
