"""Pictures as Python code holds them: paths, PIL images and arrays."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data import image as images
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import UInt8

WHAT = "a path, a PIL image, or an array of bytes (uint8) with shape [height, width, 3]"


def listed(given: Any, what: str) -> list[Any]:
    """Returns what was given as a list: one picture or text may stand for a list of one.

    Raises:
      UsageError: it is neither.
    """
    if isinstance(given, str | bytes | os.PathLike) or hasattr(given, "convert"):
        return [given]
    if isinstance(given, np.ndarray):
        return list(given) if given.ndim in (1, 4) else [given]
    if isinstance(given, Iterable):
        return list(given)
    raise UsageError(f"{what}={given!r}: give one, or a list of them")


def views(given: Sequence[Any], size: int, view: str) -> UInt8[np.ndarray, "B size size 3"]:
    """Returns pictures as the network sees them.

    Args:
      given: pictures.
      size: side that the network sees, pixels.
      view: "squash": the whole picture as a square. "crop": its centre.

    Raises:
      UsageError: there are none, or one cannot be read; the message names it.
    """
    if not given:
        raise UsageError("images is an empty list: give at least one")
    if view not in _VIEWS:
        raise UsageError(f"view={view!r}: choose one of {', '.join(map(repr, _VIEWS))}")
    return np.stack([_VIEWS[view](pixels_of(each), size) for each in given])


def pixels_of(picture: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a picture's pixels, RGB.

    Raises:
      UsageError: it cannot be read, or is no picture.
    """
    if hasattr(picture, "convert"):  # A PIL image; PIL is slow to import.
        return np.asarray(_upright(picture).convert("RGB"))
    if isinstance(picture, np.ndarray):
        fits = picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
        if picture.dtype != np.uint8 or not fits:
            raise UsageError(
                f"an array of type {picture.dtype} and shape {list(picture.shape)} is no picture: "
                f"give {WHAT}"
            )
        return picture
    if isinstance(picture, str | os.PathLike):
        return _read(os.fspath(picture))
    raise UsageError(f"an object of type {type(picture).__name__} is no picture: give {WHAT}")


def _read(path: str) -> UInt8[np.ndarray, "height width 3"]:
    if "://" in path:
        raise UsageError(f"{path} is an address: download the picture, and give its path")
    try:
        with open(path, "rb") as file:
            return images.decode(file.read())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}; give a picture, such as JPEG or PNG") from error


def _upright(picture: Any) -> Any:
    """Turns a photograph as its EXIF orientation says, as ``data.image.decode`` does."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(picture)


def _squashed(pixels: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    return images.resize(pixels, size, size)


_VIEWS = {"squash": _squashed, "crop": images.centre_view}
