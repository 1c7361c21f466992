"""A run refuses to start if one set holds out what another trains on.

The message names both sets, the count and an example.
"""

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.make_data import build, build_pairs, build_texts, pair_members, sentence, write_tar
from vlbeit_jax.data import keys as keys_module
from vlbeit_jax.data.identity import KEYS, PICTURES, TEXTS, TRAIN, VALIDATION
from vlbeit_jax.data.keys import NONE, KeyCollector, common, merged
from vlbeit_jax.data.source import META_FILE, open_set
from vlbeit_jax.data.splits import (
    NOTHING_SEEN,
    read_seen,
    require_apart,
    seen_by,
    seen_records,
    write_seen,
)
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.pack import pack_texts
from vlbeit_jax.types import Kind


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tokenizer):
    """By name: pairs; images of the same files, with the same and another share; texts; tokens."""
    folder = tmp_path_factory.mktemp("sets")
    tar = write_tar(folder / "a.tar", pair_members(60))
    build(folder / "pairs", Kind.PAIRS, [tar], validation_share=0.3)
    build(folder / "images", Kind.IMAGES, [tar], validation_share=0.3)
    build(folder / "fewer", Kind.IMAGES, [tar], validation_share=0.1)
    build_pairs(folder, "others", 20, first=500)
    for name, share in (("texts", 0.3), ("all_texts", 0)):
        build_texts(folder, name, map(sentence, range(600, 640)), validation_share=share)
        pack_texts(folder / f"{name}_tokens", [str(folder / name)], tokenizer, 16)
    return {path.name: open_set(str(path)) for path in folder.iterdir() if path.is_dir()}


def test_sets_that_go_together_pass(sets):
    require_apart([])
    require_apart(
        [sets["pairs"], sets["images"], sets["others"], sets["texts_tokens"], sets["pairs"]]
    )


def test_held_out_records_that_another_set_trains_on_are_refused(sets):
    held = sets["pairs"]
    shared = common(held.keys(PICTURES, VALIDATION), sets["fewer"].keys(PICTURES, TRAIN)[0])
    assert shared.shape[1] > 3
    for order in ([held, sets["fewer"]], [sets["fewer"], sets["others"], held]):
        with pytest.raises(UsageError) as error:
            require_apart(order)
        said = str(error.value)
        assert (
            f"{held.folder} holds out {shared.shape[1]} pictures" in said
            and str(sets["fewer"].folder) in said
        )
        assert f"--apart_from={sets['fewer'].folder}" in said
        (identity,) = re.findall(r"for example record '(.+?)'", said)
        records = held.records(VALIDATION)
        assert identity in {records[index]["id"].decode() for index in range(len(records))}
        number = int(shared[1, 0])
        assert (
            records[number]["id"].decode() == identity
            and int(records[number]["sha256"][:16], 16) == shared[0, 0]
        )


def test_documents_of_packed_texts_are_known(sets):
    with pytest.raises(
        UsageError,
        match="texts_tokens holds out .* texts .*all_texts_tokens .*packed document "
        ".*prepare its texts again",
    ):
        require_apart([sets["texts_tokens"], sets["all_texts_tokens"]])
    with pytest.raises(
        UsageError, match="texts holds out .*all_texts_tokens .*example record 'texts/"
    ):
        require_apart([sets["texts"], sets["all_texts_tokens"]])


def test_what_a_run_has_seen_is_kept_with_it(sets, tmp_path):
    write_seen(tmp_path, seen_by([sets["pairs"], sets["texts_tokens"]]))
    seen = read_seen(tmp_path)
    assert len(seen[PICTURES]) == sets["pairs"].keys(PICTURES, TRAIN).shape[1]
    assert len(seen[TEXTS]) == sum(
        sets[name].keys(TEXTS, TRAIN).shape[1] for name in ("pairs", "texts_tokens")
    )
    for split, what in ((TRAIN, PICTURES), (VALIDATION, "")):
        assert [seen_records(sets[name], split, seen)[0] for name in ("pairs", "images")] == [
            what,
            what,
        ]
    assert seen_records(sets["all_texts"], TRAIN, seen)[0] == TEXTS
    assert (
        seen_records(sets["others"], TRAIN, seen)[0]
        == seen_records(sets["pairs"], TRAIN, NOTHING_SEEN)[0]
        == ""
    )
    (tmp_path / "trained_on" / "texts.npy").unlink()
    with pytest.raises(UsageError, match="texts.npy.*not known what the run was trained on"):
        read_seen(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_keys_that_are_not_those_that_were_written_are_refused(sets, tmp_path, damage):
    place = build_texts(tmp_path, "texts", map(sentence, range(20)), validation_share=0)
    file = place / "texts-train.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        file.write_bytes((sets["texts"].folder / "texts-train.npy").read_bytes())
    with pytest.raises(UsageError, match="texts-train.npy.*prepare the set again"):
        open_set(str(place)).keys(TEXTS, TRAIN)


def test_common_keys_are_the_intersection():
    rng = np.random.default_rng(0)
    for sizes in ((0, 5), (5, 0), (1, 1), (50, 400), (400, 50)):
        one, other = (
            np.unique(rng.integers(0, 500, size).astype(np.uint64) << np.uint64(55))
            for size in sizes
        )
        rows = np.stack([one, np.arange(len(one), dtype=np.uint64)])
        found = common(rows, other)
        assert found[0].tolist() == np.intersect1d(one, other).tolist()
        assert found[1].tolist() == [one.tolist().index(key) for key in found[0]]
    assert common(NONE, NONE[0]).shape == (2, 0) and merged([]).shape == (0,)


def test_a_key_leads_to_the_first_record_that_has_it():
    collector = KeyCollector()
    for number, keys in enumerate(([5], [2**64 - 1, 3], [], [3, 5])):
        collector.add(TRAIN, number, {TEXTS: keys})
    (found,) = collector.sorted().values()
    assert (
        found.tolist() == [[3, 5, 2**64 - 1], [1, 0, 1]] and keys_module.keys_of({"id": "1"}) == {}
    )


def test_ten_million_keys_are_compared_in_seconds(sets, monkeypatch):
    """One million held out against ten million trained on; the records are never read."""
    import time

    rng = np.random.default_rng(0)
    trained, held = (np.sort(rng.integers(0, 2**64, size, np.uint64)) for size in (10**7, 10**6))
    begun = time.monotonic()
    assert not common(np.stack([held, held]), trained).size
    assert time.monotonic() - begun < 20


def test_descriptions_say_how_many_keys_there_are(sets):
    for found in sets.values():
        stated = json.loads((found.folder / META_FILE).read_text())["keys"]
        for split in (TRAIN, VALIDATION):
            assert stated.get(split, {}) == {
                what: found.keys(what, split).shape[1]
                for what in KEYS
                if found.keys(what, split).size
            }
    empty = dataclasses.replace(sets["pairs"], meta={**sets["pairs"].meta, "keys": {}})
    assert empty.keys(PICTURES, TRAIN) is NONE
