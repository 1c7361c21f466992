"""Folders of pictures, at any depth; the caption of NAME.jpg is in NAME.txt beside it, if any."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.webdataset import IMAGES
from vlbeit_jax.prepare.item import Item, source_paths


def read(paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    """One item a picture, in the order of their paths; hidden files and folders are passed over.

    Raises:
      UsageError: a folder holds no picture, or a caption is not UTF-8.
    """
    for folder, source in zip(paths, source_paths(paths), strict=True):
        pictures = sorted(
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.suffix[1:].lower() in IMAGES and path.is_file()
        )
        pictures = [path for path in pictures if not any(part[0] == "." for part in path.parts)]
        if not pictures:
            raise UsageError(
                f"{folder}: there is no picture in this folder or below it; pictures are files "
                f"that end with .{', .'.join(sorted(IMAGES))}"
            )
        for path in pictures:
            caption = _caption((folder / path).with_suffix(".txt"))
            name = (source / path).as_posix()
            yield Item(
                name,
                (folder / path).read_bytes(),
                (caption,) if caption else (),
                source=name,
            )


def _caption(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error})") from error
