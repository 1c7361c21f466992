"""The comparison of adapted runs: what is scored, and what is compared."""

import numpy as np

from tests import tiny
from tools.transfer import domain
from vlbeit_jax.data.identity import PICTURES, TEXTS, text_key
from vlbeit_jax.data.keys import keys_of
from vlbeit_jax.data.source import open_set
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind


def test_records_that_a_run_has_seen_are_left_out_for_all(tmp_path):
    meta = {"source": "tests", "licence": ""}
    write_set(tmp_path / "pairs", Kind.PAIRS, tiny.pair_records(16), shards=1, meta=meta)
    found = open_set(str(tmp_path / "pairs"))
    records = found.records("validation")
    picture = keys_of(records[0])[PICTURES]
    caption = text_key(records[2]["captions"][0].decode().upper())  # Case does not count.
    nothing = np.zeros(0, np.uint64)
    runs = [
        {PICTURES: np.array(picture, np.uint64), TEXTS: nothing},
        {PICTURES: nothing, TEXTS: np.array([caption], np.uint64)},
    ]
    kept = [record["id"] for record in domain._unseen(found, "validation", runs)]
    assert kept == [records[1]["id"], records[3]["id"]]
    assert (
        len(domain._unseen(found, "validation", [dict.fromkeys((PICTURES, TEXTS), nothing)])) == 4
    )


def scores(right):
    ones = np.ones(len(right))
    return Scores(np.arange(len(right)), np.array(right, float), ones, 2 * ones, np.ones(4))


def test_gains_are_over_the_start_and_it_has_none():
    start, other = {"mim": scores([0, 1, 1, 0])}, {"mim": scores([2, 1, 2, 1])}
    assert domain._compared(start, start)["mim"]["gain"] is None
    found = domain._compared(other, start)["mim"]
    assert found["accuracy"] == 6 / 8 and found["gain"]["value"] == 0.5
    runs = {"START": domain._compared(start, start), "RUN": domain._compared(other, start)}
    part = {"set": "S", "split": "test", "records": 4, "left_out": 1, "runs": runs}
    text = domain.told({"results": {"domain": part}})
    assert "4 records of S, test; 1 left out" in text and "+0.5000 (" in text
