"""What makes a picture or a text the same one, and on which side of the split it stands.

A picture is its file's bytes, by SHA-256, as they were found and before anything was re-encoded. Files
stay the same for ever; what a decoder makes of a JPEG may change by a grey level with its next release,
which would move pictures across the split and hide the move from the check at a start. The price: a
picture that was saved again (another format or quality, other metadata) counts as another picture.

A text is what is left of it after the tokenizer's normalisation (SentencePiece's nmt_nfkc) and after
case, white space and invisible characters are taken away. Texts that the tokenizer sees as one are
thus always one here; some that it tells apart ("Tiger" and "tiger") are one as well.

The side is a function of the picture or the text alone. So it is the same in every set, whatever else
is in it, and in every process that prepares a part of one.
"""

import hashlib
import re
import unicodedata

TRAIN, VALIDATION = "train", "validation"
PICTURES, TEXTS = "pictures", "texts"  # The two kinds of keys.
KEYS = (PICTURES, TEXTS)
# Controls, formats (byte-order mark, zero-width characters, direction marks), spaces and separators of
# Unicode 14, and what nmt_nfkc makes a space besides: its own word mark and U+FFFD. The list is ours, so
# that a Python with a newer Unicode splits as this one does.
INVISIBLE = re.compile(
    "[\u0000-\u0020\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u1680"
    "\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u2581\u3000\ufeff\ufff9-\ufffb"
    "\ufffd\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f]+"
)


def picture_digest(encoded: bytes) -> str:
    """The SHA-256 of a picture's file in hexadecimal, as ``sha256sum`` and img2dataset write it."""
    return hashlib.sha256(encoded).hexdigest()


def picture_key(digest: str | bytes) -> int:
    """The first 64 bits of a picture's digest."""
    return int(digest[:16], 16)


def text_key(text: str) -> int:
    """64 bits of a hash of what identifies a text."""
    normal = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    normal = INVISIBLE.sub("", unicodedata.normalize("NFKC", normal))  # Case folding can undo it.
    return int.from_bytes(hashlib.sha256(normal.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def split_of(key: int, validation_share: float | int) -> str:
    """Train or validation; what a smaller share holds back, a larger one holds back too."""
    return VALIDATION if (key >> 11) / 2**53 < validation_share else TRAIN  # Exact, and below 1 for every key.
