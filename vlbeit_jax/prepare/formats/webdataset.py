"""Webdataset tars, as img2dataset writes them: KEY.jpg, KEY.txt and KEY.json in a row.

Images may also be png, webp, bmp, gif or tiff.
"""

import json
import pathlib
import tarfile
from collections.abc import Iterator, Sequence

from vlbeit_jax.prepare.formats.base import BadInput, Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS})

IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"}


class _Member(tarfile.TarInfo):
    """A header that must be there unless the end mark is: otherwise the tar is damaged.

    tarfile alone would take a tar that was cut off for one that ends there.
    """

    @classmethod
    def fromtarfile(cls, tarfile_):
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue] - the regular end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error) or "no end mark") from error


def sniff(found: Found) -> bool:
    """Returns whether a file is a tar."""
    return found.head[257:262] == b"ustar"


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a tar."""
    return Plan(a_unit_each(paths))


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Items in the order of the tars; members are streamed and never unpacked to disk.

    The caption is KEY.txt, or else the field "caption" of KEY.json.

    Raises:
      BadInput: a file is no tar, or is cut off.
    """
    try:
        with tarfile.open(unit.path, "r|*", tarinfo=_Member) as archive:
            yield from _items(archive, unit.stem)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(unit.path, f"cannot be read as a tar ({error})") from error


def _items(archive: tarfile.TarFile, source: str) -> Iterator[Item]:
    key, parts, names = None, {}, {}
    for member in archive:
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        stem = folder + slash + stem
        if not member.isfile() or not extension:
            continue
        if stem != key and parts:
            yield _item(f"{source}/{key}", parts, names)
            parts, names = {}, {}
        key = stem
        content = archive.extractfile(member)
        assert content is not None, "a regular file has content"
        parts[extension.lower()] = content.read()
        names[extension.lower()] = member.name
    if parts:
        yield _item(f"{source}/{key}", parts, names)


def _item(key: str, parts: dict[str, bytes], names: dict[str, str]) -> Item:
    """An item of its parts' contents and names, by extension."""
    picture = next((extension for extension in parts if extension in IMAGES), None)
    caption = parts.get("txt", b"").decode("utf-8", "replace").strip()
    if not caption and "json" in parts:
        caption = _caption(parts["json"]).strip()
    image = parts[picture] if picture else None
    return Item(
        key, image, (caption,) if caption else (), source=names[picture or next(iter(names))]
    )


def _caption(description: bytes) -> str:
    """The field "caption"; empty if there is none, or the description cannot be read."""
    try:
        found = json.loads(description)
    except ValueError:
        return ""
    caption = found.get("caption") if isinstance(found, dict) else None
    return caption if isinstance(caption, str) else ""
