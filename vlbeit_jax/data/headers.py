"""The size of a picture, from its header, without decoding it."""

import io

from PIL import Image

MAX_PIXELS = 64_000_000  # Height times width: 200 MB once decoded.
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
SCAN, APP1 = 0xDA, 0xE1
# Frame headers of all processes; C4, C8 and CC between them are no frames (ITU-T T.81, table B.1).
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def pixels_in_header(encoded: bytes) -> int | None:
    """Returns height times width of a picture: in two microseconds for JPEG and PNG.

    Returns:
      None if the header cannot be read.
    """
    if encoded[:8] == PNG:
        return int.from_bytes(encoded[16:20], "big") * int.from_bytes(encoded[20:24], "big")
    if encoded[:2] == JPEG and (shape := _frame(encoded, upright=False)):
        return shape[0] * shape[1]
    try:
        width, height = Image.open(io.BytesIO(encoded)).size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Image.MAX_IMAGE_PIXELS or MAX_PIXELS + 1  # It has more.
    except Exception:  # Pillow's readers raise errors of many types on damaged files.
        return None
    return height * width


def shape_in_header(encoded: bytes) -> tuple[int, int] | None:
    """Returns height and width of a JPEG in about two microseconds.

    Returns:
      None if it is no JPEG, or if it has EXIF data, which may turn it.
    """
    return _frame(encoded, upright=True) if encoded[:2] == JPEG else None


def _frame(encoded: bytes, upright: bool) -> tuple[int, int] | None:
    """Returns height and width; None if EXIF data may turn it (``upright``)."""
    place, end = 2, len(encoded)
    while place + 9 <= end and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker == 0xFF:  # Any number of these may stand before a marker.
            place += 1
            continue
        if marker in FRAMES:
            height = int.from_bytes(encoded[place + 5 : place + 7], "big")
            width = int.from_bytes(encoded[place + 7 : place + 9], "big")
            return (height, width) if height and width else None
        is_exif = marker == APP1 and encoded[place + 4 : place + 8] == b"Exif"
        if marker == SCAN or (upright and is_exif):
            return None
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return None
