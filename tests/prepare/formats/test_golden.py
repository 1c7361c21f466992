"""Files that other programs wrote give the records that they should."""

import hashlib
import importlib.util
import json
import re

import pytest

from tests.prepare.formats.conftest import GOLDEN
from tests.prepare.formats.reading import Reading
from tests.tiny import TOP
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.formats.detect import recognise
from vlbeit_jax.types import Kind

EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def records(found: Reading, kind: str) -> list:
    if kind == Kind.TEXTS:
        return found.texts
    words = "label" if kind == Kind.LABELLED_IMAGES else "captions"
    return [
        [
            hashlib.sha256(item.image or b"").hexdigest()[:16],
            item.label if words == "label" else list(item.captions),
        ]
        for item in found.items
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_inputs_give_their_records(golden, name):
    wanted = EXPECTED[name]
    if name == "croissant" and not importlib.util.find_spec("mlcroissant"):
        pytest.skip("mlcroissant is not installed: pip install 'vlbeit-jax[formats]'")
    path = golden / wanted["input"]
    kind = wanted["kind"]
    recognised = recognise("auto", [path], Kind(kind))
    assert recognised == wanted["format"]
    assert recognise(recognised, [path], Kind(kind)) == recognised
    found = Reading(recognised, path, kind=kind)
    if wanted["records"] == "20 pairs":
        assert [item.captions for item in found.items] == [(f"cap {i}",) for i in range(20)]
        assert all(item.image for item in found.items)
    else:
        assert records(found, kind) == wanted["records"]
    assert found.faults == wanted.get("faults", {})
    assert found.skipped == wanted.get("skipped", {})
    assert found.plan.links == wanted.get("links", {})
    assert found.plan.items in (None, len(found.items) + sum(found.faults.values()))
    assert len({item.key for item in found.items}) == len(found.items)


def test_every_format_has_a_golden_input_or_a_test_of_its_own():
    tested = {wanted["format"] for wanted in EXPECTED.values()}
    assert FORMATS.keys() - tested == {
        *("ade20k", "imagenet", "nlvr2", "vqav2", "vqav2-trainval", "jsonl"),  # tests/prepare
        "beit3",  # test_index.py
    }


def test_the_list_of_sbu_captions_says_how_to_download_it(tmp_path):
    """It is one line of several hundred megabytes: an object of columns."""
    lists = {"image_urls": ["http://a.example/0.jpg"] * 9000, "captions": ["words"] * 9000}
    (tmp_path / "sbu-captions-all.json").write_text(json.dumps(lists))
    path = tmp_path / "sbu-captions-all.json"
    assert recognise("auto", [path], Kind.PAIRS) == "json"
    with pytest.raises(UsageError, match="--url_col=image_urls --caption_col=captions"):
        Reading("json", path, kind="pairs")


def test_the_table_of_the_documentation_names_every_format():
    text = (TOP / "docs" / "data.md").read_text()
    table = text[text.index("| what you have |") : text.index("### Rules")]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    elsewhere = {
        "ade20k",
        "imagenet",
        "nlvr2",
        "vqav2",
        "vqav2-trainval",
    }  # published_benchmarks.md
    assert FORMATS.keys() - elsewhere <= named


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [
        ("cc3m_links.tsv", r"caption\turl", ("--url_col=url", "--caption_col=caption")),
        ("cc12m_links.tsv", r"url\tcaption", ("--url_col=url", "--caption_col=caption")),
    ],
)
def test_a_list_of_links_says_how_to_download_it(golden, name, header, columns):
    with pytest.raises(UsageError, match="list of links") as caught:
        Reading("tsv", golden / "tsv_csv" / name)
    said = str(caught.value)
    assert f"sed -i '1s/^/{header}\\n/'" in said and all(each in said for each in columns)
    assert "--input_format=tsv" in said and "--format=webdataset" in said
