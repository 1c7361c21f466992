"""Pairs keep the groups that their annotations state; pairs without any stay as they were."""

import pytest

from tests.make_data import build, records
from tests.prepare.test_jsonl import write
from vlbeit_jax.data.identity import SPLITS
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks.open_fine_tuned import groups_of
from vlbeit_jax.types import Kind


def rows(*groups):
    """One picture each, with a caption; ``None`` has no group."""
    lines = [
        {"id": str(i), "image": i, "captions": [f"caption {i}"], "split": "test"}
        for i in range(len(groups))
    ]
    return [
        line | ({"group": group} if group else {})
        for line, group in zip(lines, groups, strict=True)
    ]


def prepared(folder, name, lines):
    path = write(folder, lines, f"{name}.jsonl")
    meta = build(folder / name, Kind.PAIRS, [path], source_format="jsonl")
    return meta, sorted(records(folder / name, *SPLITS), key=lambda record: record["id"])


def test_groups_are_kept_and_a_pair_without_one_is_its_own(tmp_path):
    meta, found = prepared(tmp_path, "grouped", rows("a", None, "a", "b"))
    assert groups_of(found)[[0, 2]].tolist() == [groups_of(found)[0]] * 2
    assert len(set(groups_of(found).tolist())) == 3
    assert [found[i]["group"] for i in (0, 2, 3)] == [b"a", b"a", b"b"]
    assert found[1]["group"] == found[1]["sha256"]

    # The control: other groups are other data, and none leave the records as they were.
    other, _ = prepared(tmp_path, "other", rows("a", None, "b", "b"))
    without, plain = prepared(tmp_path, "without", rows(*4 * [None]))
    assert len({each["fingerprint"] for each in (meta, other, without)}) == 3
    assert all(each.keys() == {"id", "source", "sha256", "image", "captions"} for each in plain)
    assert len(set(groups_of(plain).tolist())) == 4


def test_a_wrong_line_is_still_refused_with_its_place(tmp_path):
    lines = [*rows("a", "b"), '{"group": "a", ', '["group"]']
    with pytest.raises(UsageError, match="bad.jsonl:3: .*not JSON") as caught:
        prepared(tmp_path, "bad", lines)
    assert "bad.jsonl:4" in str(caught.value)
