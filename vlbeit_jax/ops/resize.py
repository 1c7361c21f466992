"""Resizes learned tables of positions for images of another size. NumPy, on small tables.

Both methods are separable: one matrix per axis of the grid.
"""

import numpy as np

from vlbeit_jax.shapes import Float

# Keys' cubic kernel comes with two values of its free parameter. PyTorch takes the first for plain
# interpolation and the second where it antialiases.
SHARP, SMOOTH = -0.75, -0.5
BISECTIONS = 60  # More halvings than float64 resolves.


def resize_grid(grid: Float[np.ndarray, "G G D"], side: int) -> Float[np.ndarray, "_ _ D"]:
    """Resizes a square grid of vectors by bicubic interpolation, in the type of ``grid``.

    Equals PyTorch's ``interpolate(mode="bicubic", align_corners=False)``, which BEiT-3 applies to
    its table of positions. A smaller grid is antialiased as with ``antialias=True``. Without that,
    it would depend on a few entries of the table alone.
    """
    return _along_both_axes(grid, bicubic_matrix(grid.shape[0], side))


def resize_offsets(offsets: Float[np.ndarray, "A A D"], width: int) -> Float[np.ndarray, "_ _ D"]:
    """Enlarges a square table of biases by offset, in the type of ``offsets``.

    The method is BEiT's and VLMo's: entries near offset 0 stay almost where they are, and the
    remote ones are spread so that the last one lies at the new edge.

    Args:
      offsets: biases by vertical and horizontal offset, offset 0 in the middle.
      width: of the result; odd, and larger than that of ``offsets``, which is at least 5.
    """
    return _along_both_axes(offsets, geometric_matrix(offsets.shape[0], width))


def bicubic_matrix(source: int, target: int) -> Float[np.ndarray, "O I"]:
    """Returns the weight of each source place in each target place; rows sum to 1."""
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale - 0.5
    if target < source:
        # The kernel grows with the step between target places. What lies outside the table has no
        # weight, so the rest is normalised.
        weights = _cubic((np.arange(source) - centre[:, None]) / scale, SMOOTH)
        return weights / weights.sum(1, keepdims=True)
    weights = np.zeros((target, source))
    first = np.floor(centre).astype(int) - 1
    for place in (first, first + 1, first + 2, first + 3):
        # Outside the table, its edge goes on.
        inside = np.clip(place, 0, source - 1)
        weights[np.arange(target), inside] += _cubic(place - centre, SHARP)
    return weights


def geometric_matrix(source: int, target: int) -> Float[np.ndarray, "O I"]:
    """Returns the cubic spline through ``source`` offsets at 0, 1, 1 + q, 1 + q + q^2, ... .

    The ratio q is the one with which the last offset reaches the edge of ``target``. Both widths
    are odd, ``source`` is at least 5 and ``target`` is larger.
    """
    # Slow to import, and only a change of the image size needs it.
    from scipy.interpolate import make_interp_spline

    reach, wanted = source // 2, target // 2
    low, high = 1.0, float(wanted)
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        if (ratio ** np.arange(reach)).sum() < wanted:
            low = ratio
        else:
            high = ratio
    distances = np.cumsum(low ** np.arange(reach))
    places = np.concatenate([-distances[::-1], [0.0], distances])
    spline = make_interp_spline(places, np.eye(source), k=3)
    return spline(np.arange(-wanted, wanted + 1))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with free parameter ``a``."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _along_both_axes(grid: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    # In float64, so that the order of the two axes does not show.
    rows = np.tensordot(matrix, grid.astype(np.float64), axes=1)
    both = np.tensordot(matrix, rows.swapaxes(0, 1), axes=1).swapaxes(0, 1)
    return np.ascontiguousarray(both, grid.dtype)
