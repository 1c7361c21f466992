"""Windows: where they lie, and how their logits become classes of a picture's pixels."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vlbeit_jax.ops.windows import Canvas, Size, places, resized, scaled, starts

# Where windows of 512 begin at stride 341, as mmsegmentation lays them.
STARTS = {
    400: [0],
    512: [0],
    683: [0, 171],
    768: [0, 256],
    1024: [0, 341, 512],
    2048: [0, 341, 682, 1023, 1364, 1536],
}


@pytest.mark.parametrize("length", STARTS)
def test_windows_lie_where_mmsegmentations_do(length):
    assert starts(length, 512, 341) == STARTS[length]


def test_the_shorter_side_becomes_a_windows_unless_the_longer_one_is_too_long():
    assert scaled(Size(480, 640), 512) == (512, 683)
    assert scaled(Size(300, 100), 512) == (1536, 512)
    assert scaled(Size(100, 1000), 512) == (205, 2048)
    assert scaled(Size(480, 640), 512, 0.5) == (256, 341)
    assert places(Size(512, 683), 512, 341) == [(0, 0), (0, 171)]


def as_torch(x, size):
    given = torch.from_numpy(x).double().permute(2, 0, 1)[None]
    found = functional.interpolate(given, size, mode="bilinear", align_corners=False)
    return found[0].permute(1, 2, 0).numpy()


def test_classes_are_those_of_averaged_and_resized_logits():
    """Against PyTorch in float64, for a picture of several windows and strips."""
    rng, side, stride = np.random.default_rng(0), 8, 5
    size, picture = Size(8, 18), Size(150, 340)
    corners = places(size, side, stride)
    assert len(corners) == 3
    logits = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    canvas, total = Canvas(size, 3), np.zeros((*size, 4))
    windows = np.zeros((*size, 1))
    for (top, left), own in zip(corners, logits, strict=True):
        canvas.add((top, left), own, side)
        total[top : top + side, left : left + side] += as_torch(own, (side, side))
        windows[top : top + side, left : left + side] += 1
    found = canvas.classes(picture)
    expected = as_torch(total / windows, picture)
    assert found.shape == picture and found.dtype == np.uint8
    top_two = np.sort(expected, axis=-1)[..., -2:]
    clear = top_two[..., 1] - top_two[..., 0] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected.argmax(-1)[clear])
    # A sum instead of a mean would be another answer where windows overlap.
    assert (as_torch(total, picture).argmax(-1) != expected.argmax(-1)).any()


def test_a_window_beyond_the_picture_is_cut():
    canvas = Canvas(Size(3, 8), 1)
    logits = np.zeros((8, 8, 2), np.float32)
    logits[3:, :, 1] = 9.0  # Outside.
    canvas.add((0, 0), logits, 8)
    assert not canvas.classes(Size(3, 8)).any()


@pytest.mark.parametrize("size", [Size(7, 3), Size(2, 9), Size(5, 4)])
def test_maps_are_resized_as_by_pytorch(size):
    x = np.random.default_rng(1).normal(size=(5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(resized(x, size), as_torch(x, size), atol=1e-6)
