"""Webdataset tars, as img2dataset writes them: KEY.jpg (or png, webp, ...), KEY.txt, KEY.json, one key after the other."""

import json
import pathlib
import tarfile
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.item import Item

IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"}


def read(paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    """Items in the order of the tars; members are streamed and never unpacked to disk.

    The caption is KEY.txt, or else the field "caption" of KEY.json.

    Raises:
      UsageError: a file is no tar, or is cut off.
    """
    for path in paths:
        try:
            with tarfile.open(path, "r|*") as archive:
                yield from _items(archive, path.stem)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UsageError(f"{path}: cannot be read as a tar ({error})") from error


def _items(archive: tarfile.TarFile, source: str) -> Iterator[Item]:
    key, parts = None, {}
    for member in archive:
        stem, _, extension = member.name.rpartition("/")[2].partition(".")
        if not member.isfile() or not extension:
            continue
        if stem != key and parts:
            yield _item(f"{source}/{key}", parts)
            parts = {}
        key = stem
        parts[extension.lower()] = archive.extractfile(member).read()
    if parts:
        yield _item(f"{source}/{key}", parts)


def _item(key: str, parts: dict[str, bytes]) -> Item:
    image = next((content for extension, content in parts.items() if extension in IMAGES), None)
    caption = parts["txt"].decode("utf-8", "replace") if "txt" in parts else ""
    if not caption and "json" in parts:
        caption = json.loads(parts["json"]).get("caption") or ""
    return Item(key, image, (caption.strip(),) if caption.strip() else ())
