"""What a format yields: the same few fields wherever they come from."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Item:
    """One example as it was found.

    Attributes:
      key: identifies it within its source.
      image: encoded bytes, unread; None if there is no image.
      captions: of the image.
      text: a document.
    """

    key: str
    image: bytes | None = None
    captions: tuple[str, ...] = ()
    text: str = ""
