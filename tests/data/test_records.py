"""Concatenated and padded records are those of their parts."""

import pytest

from vlbeit_jax.data.records import ConcatRecords, PadRecords


def records(*numbers):
    return [{"id": number} for number in numbers]


def test_parts_follow_each_other_and_empty_ones_are_skipped():
    joined = ConcatRecords([[], records(1, 2), [], records(3), []])
    assert [joined[index]["id"] for index in range(len(joined))] == [1, 2, 3]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            joined[index]
    assert len(ConcatRecords([])) == 0


@pytest.mark.parametrize(
    ("batch_size", "ids", "weights"),
    [
        (2, [1, 2, 3, 1, 2, 3], [1, 1, 1, 1, 1, 1]),
        (4, [1, 2, 3, 1, 2, 3, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]),
    ],
)
def test_padding_fills_the_last_batch_with_weight_0(batch_size, ids, weights):
    padded = PadRecords(records(1, 2, 3), batch_size, repeats=2)
    rows = [padded[index] for index in range(len(padded))]
    assert [row["id"] for row in rows] == ids and [row["weight"] for row in rows] == weights
    with pytest.raises(IndexError):
        padded[len(padded)]


def test_nothing_is_padded_where_there_is_nothing():
    assert len(PadRecords([], 4)) == 0
