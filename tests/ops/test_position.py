"""The joint table of relative positions, against facts of VLMo's released code."""

import numpy as np
import pytest

from vlbeit_jax.convert import reference
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.types import Modality

GRID, PIECES = 14, 196
IMAGE, TEXT = (Modality.VISION, 197), (Modality.LANGUAGE, 40)


def index(*layout):
    return relative_index(layout, GRID, PIECES)


def patch(row, column):
    return 1 + row * GRID + column


def test_table_rows():
    assert table_rows(GRID, PIECES) == 1126
    assert [table_rows(grid, 0) for grid in (14, 24)] == [734, 47**2 + 5]


def test_image():
    found = index(IMAGE)
    assert found.shape == (197, 197)
    assert (found[0, 1:] == 729).all()
    assert (found[1:, 0] == 730).all()
    assert found[0, 0] == 731
    np.testing.assert_array_equal(np.unique(found[1:, 1:]), np.arange(729))
    assert (np.diag(found)[1:] == 13 * 27 + 13).all()


def test_image_offsets_are_query_minus_key():
    found = index(IMAGE)
    assert found[patch(13, 13), patch(0, 0)] == 728
    assert found[patch(0, 0), patch(13, 13)] == 0
    assert found[patch(5, 3), patch(4, 3)] - found[patch(5, 3), patch(5, 3)] == 27
    assert found[patch(5, 3), patch(5, 2)] - found[patch(5, 3), patch(5, 3)] == 1
    assert found[patch(7, 2), patch(3, 11)] == (7 - 3 + 13) * 27 + (2 - 11 + 13)


def test_text():
    found = index(TEXT)
    assert found.shape == (40, 40)
    assert (found[0, 1:] == 1123).all()
    assert (found[1:, 0] == 1124).all()
    assert found[0, 0] == 1125
    assert (np.diag(found)[1:] == 928).all()
    np.testing.assert_array_equal(np.unique(found), [*range(890, 967), 1123, 1124, 1125])


def test_text_offsets_are_key_minus_query():
    found = index(TEXT)
    assert found[1, 39] == 928 + 38
    assert found[39, 1] == 928 - 38
    assert found[10, 12] == 930


def test_longest_text_uses_every_text_row():
    found = index((Modality.LANGUAGE, PIECES))
    np.testing.assert_array_equal(np.unique(found), np.arange(734, 1126))


@pytest.mark.parametrize("layout", [(IMAGE, TEXT), (TEXT, IMAGE)])
def test_pair(layout):
    found = index(*layout)
    start, parts = 0, {}
    for modality, length in layout:
        parts[modality] = slice(start, start + length)
        start += length
    image, text = parts[Modality.VISION], parts[Modality.LANGUAGE]
    assert found.shape == (237, 237)
    np.testing.assert_array_equal(found[image, image], index(IMAGE))
    np.testing.assert_array_equal(found[text, text], index(TEXT))
    assert (found[text, image] == 732).all()
    assert (found[image, text] == 733).all()


@pytest.mark.parametrize(("grid", "pieces", "length"), [(14, 196, 59), (4, 9, 9), (3, 12, 5)])
def test_equals_reference(grid, pieces, length):
    layout = ((Modality.VISION, grid**2 + 1), (Modality.LANGUAGE, length))
    net = reference.Net(depth=1, heads=1, grid=grid, patch=1, text_positions=pieces)
    found = relative_index(layout, grid, pieces)
    np.testing.assert_array_equal(found, reference.joint_index(net, True, length))
    assert 0 <= found.min() and found.max() == table_rows(grid, pieces) - 1
    assert np.issubdtype(found.dtype, np.integer)
