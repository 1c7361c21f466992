"""The table of a model's vectors: on few emoji, against the parts that it is made of."""

import json

import numpy as np
import pytest

import vlbeit_jax
from tools.transfer import vectors
from tools.transfer.probing import Labelled, nearest, ridge
from vlbeit_jax.data.image import decode
from vlbeit_jax.metrics.probes import unit_rows

ROWS = 90


@pytest.fixture
def few(monkeypatch):
    """Emoji from all over the set."""
    whole = vectors.labelled_emoji

    def chosen(found):
        records, data = whole(found)
        rows = np.linspace(0, len(records) - 1, ROWS).astype(int)
        labelled = Labelled(data.labels[rows], data.groups[rows], data.classes)
        return [records[row] for row in rows], labelled

    monkeypatch.setattr(vectors, "labelled_emoji", chosen)
    return chosen(vectors.open_set(vectors.SET))


@pytest.mark.slow
def test_each_vector_is_judged_by_itself(few, tmp_path, capsys):
    vectors.main(["sample", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found) == 4 * 5 + 2  # Image, text, their CLS; norm and four blocks; all, joined.
    records, data = few
    images = [decode(record["image"]) for record in records]
    cls = vlbeit_jax.load("sample").encode(images=images).image_cls
    expected = {
        "neighbours": nearest(unit_rows(cls), data, vectors.NEIGHBOURS).mean(),
        "ridge": ridge([cls], data).right.mean(),
    }
    assert found["image_cls after the final norm"] == pytest.approx(expected)
    assert f"| `image_cls after the final norm` | {expected['neighbours']:.3f} |" in (
        capsys.readouterr().out
    )
    others = {tuple(each.values()) for each in found.values()}
    assert len(others) > 10
