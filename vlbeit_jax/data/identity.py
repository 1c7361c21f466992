"""When two pictures or two texts count as the same, and on which side of the split each one is.

Two pictures are the same if their files have the same SHA-256, before anything is re-encoded. We do
not hash decoded pixels: the next release of a decoder may change a JPEG's pixels by a grey level,
which would move pictures across the split and hide the move from the check at the start of a run.
The price: a picture that was saved again (in another format or quality, or with other metadata)
counts as another one.

Two texts are the same if nothing but case, white space and invisible characters is different after
the tokenizer's normalisation (SentencePiece's nmt_nfkc). So texts that the tokenizer sees as the
same are always the same here. Some that it distinguishes ("Tiger" and "tiger") are the same here
too.

The side depends only on the picture or the text. So it is the same in every set, whatever else the
set holds, and in every process that prepares a part of a set.
"""

import hashlib
import re
import unicodedata

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
HELD_OUT = (VALIDATION, TEST)  # Nothing in them is trained on.
PICTURES, TEXTS = "pictures", "texts"  # The two kinds of keys.
KEYS = (PICTURES, TEXTS)
DIGESTS = ("sha256", "second_sha256")  # Fields of a record: those of its pictures.
# The controls, formats (byte-order mark, zero-width characters, direction marks), spaces and
# separators of Unicode 14, and two more that nmt_nfkc turns into a space: its own word mark and
# U+FFFD. We write the list down, so that a Python with a newer Unicode splits in the same way.
INVISIBLE = re.compile(
    "[\u0000-\u0020\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u1680"
    "\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u2581\u3000\ufeff\ufff9-\ufffb"
    "\ufffd\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f]+"
)


def picture_digest(encoded: bytes) -> str:
    """Returns the SHA-256 of a picture's file, as ``sha256sum`` and img2dataset write it."""
    return hashlib.sha256(encoded).hexdigest()


def picture_key(digest: str | bytes) -> int:
    """Returns the first 64 bits of a picture's digest."""
    return int(digest[:16], 16)


def text_key(text: str) -> int:
    """Returns 64 bits of the hash of a text in its normal form."""
    normal = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    normal = INVISIBLE.sub("", unicodedata.normalize("NFKC", normal))  # Case folding can undo NFKC.
    return int.from_bytes(
        hashlib.sha256(normal.encode("utf-8", "surrogatepass")).digest()[:8], "big"
    )


def group_key(group: str) -> int:
    """Returns 64 bits of the hash of the name of a group, whose records are on one side."""
    return int.from_bytes(
        hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:8], "big"
    )


def statement_name(text: str, group: str) -> str:
    """Returns a name that the records of one statement have in common.

    Args:
      text: of the statement.
      group: that a record's source states. Without one, all records with this text are of one
        statement; otherwise only those of the group.
    """
    return f"{group}/{text_key(text):016x}"


def split_of(key: int, validation_share: float | int) -> str:
    """Returns the split of a key. A larger share holds out everything that a smaller one does."""
    return (
        VALIDATION if (key >> 11) / 2**53 < validation_share else TRAIN
    )  # Exact, and below 1 for every key.
