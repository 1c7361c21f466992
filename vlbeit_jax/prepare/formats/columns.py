"""What the columns of a table, or the fields of an object, mean by their names."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from vlbeit_jax.config.nearest import spelt_like
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Options
from vlbeit_jax.types import Kind

# Sorted by how sure the meaning is. Compared in small letters.
IMAGE = (
    "image jpg png webp jpeg img picture image_bytes image_path img_path image_file file_path "
    "filepath image/encoded image_name file_name filename path img_name imagename photo"
).split()
CAPTION = (
    "caption captions text texts text_segment title sentence sentences description alt_text alt "
    "raw comment image/caption prompt caption_text"
).split()
LINK = "url image_url img_url link image_link coco_url flickr_url".split()
PICTURE = "image_id img_id imgid cocoid image_number".split()
DOCUMENT = "text content document body article raw_content raw_text".split()
LABEL = "label labels class category fine_label".split()


class Columns(NamedTuple):
    """Names of columns; empty: there is none of this meaning."""

    image: str = ""
    caption: str = ""
    document: str = ""
    link: str = ""
    picture: str = ""
    label: str = ""

    def for_kind(self, kind: str) -> "Columns":
        """Returns the columns that a kind needs: for texts, no pictures and no links to any."""
        if kind not in (Kind.TEXTS, Kind.LABELLED_TEXTS):
            return self
        return self._replace(image="", link="", document=self.document or self.caption)


def columns_of(names: Sequence[str], options: Options) -> Columns:
    """Returns which of some names has which meaning; what ``options`` say wins.

    Raises:
      UsageError: an option names no column.
    """
    image = _stated(options.image_column, names, "image_column")
    image = image or _first(IMAGE, names, ())
    caption = _stated(options.caption_column, names, "caption_column")
    document = caption or _first(DOCUMENT, names, (image,))
    caption = caption or _first(CAPTION, names, (image,))
    link = _first(LINK, names, ())
    label = _first(LABEL, names, (caption,))
    return Columns(image, caption, document, link, _first(PICTURE, names, (image,)), label)


def _stated(name: str, names: Sequence[str], flag: str) -> str:
    if name and name not in names:
        near = spelt_like(name, names)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"--{flag}={name}: the columns are {', '.join(names)}{hint}")
    return name


def _first(known: Sequence[str], names: Sequence[str], taken: Collection[str]) -> str:
    small = {name.strip().lower(): name for name in reversed(names) if name not in taken}
    return next((small[name] for name in known if name in small), "")


def need_columns(columns: Columns, names: Sequence[str], path: object) -> None:
    """Raises a ``UsageError`` if neither pictures nor texts are among the columns."""
    if not (columns.image or columns.document):
        raise UsageError(
            f"{path}: no name of its columns says which of them holds pictures or texts: "
            f"{', '.join(names)}; name them with --image_column and --caption_column"
        )
