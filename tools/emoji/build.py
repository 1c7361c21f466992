"""Makes the emoji data set in the package from three npm packages.

    npm pack emoji-datasource-google@16.0.0 emojibase-data@17.0.0 cldr-core@48.2.0
    python -m tools.emoji.build FOLDER_OF_THE_ARCHIVES OUT

OUT is vlbeit_jax/sample_data/emoji in this repository. The pictures are Noto's, the names are of
Unicode's CLDR; the third archive holds nothing but CLDR's licence here. Two runs write the same
bytes. Another release of the libraries (zlib, ArrayRecord) may write other bytes of the same
pixels and records.
"""

import io
import json
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tools import command
from tools.emoji.folds import split_of
from tools.emoji.groups import group_names
from vlbeit_jax.data.identity import picture_digest, text_key
from vlbeit_jax.data.image import decode
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.check import Limits, checked_image
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

TOP = pathlib.Path(__file__).parent.parent.parent
# File and SHA-256 of each archive.
PICTURES = (
    "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
NAMES = (
    "emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)
LICENCE = (
    "cldr-core-48.2.0.tgz",
    "5310e0c7a06c1feb83dc8e54c8584bbe0b9c2ea8320172a18d541986b124585d",
)
# No picture of an emoji, but a part of others.
COMPONENT = "Component"
# Left out: the name tells the class ("flag: Norway"), and so does the shape of the picture.
FLAGS = "Flags"
# What a record holds besides those of a labelled image. names: the English one of CLDR first, which
# text classification takes, then Unicode's and those that people type. alpha: the mask, a PNG.
MORE = {
    "subcategory": tfds.features.Text(),
    "names": tfds.features.Sequence(tfds.features.Text()),
    "alpha": tfds.features.Text(),
}
FOLD = 0  # Whose test part is the set's own.
SUMMARY = """\
The pictures are Google's Noto emoji (Apache License 2.0, below), as the npm package
emoji-datasource-google 16.0.0 has them. We put each one on white, kept its transparency as a mask
of its own, and encoded both again. Names, categories and subcategories are of Unicode's emoji data
and CLDR (Unicode License V3, below), as emoji-datasource-google 16.0.0 and emojibase-data 17.0.0
(both MIT License, below) have them. We made the groups and splits.
"""


class Emoji(NamedTuple):
    """One emoji of the archives; ``picture`` is the file's name, ``png`` its content."""

    id: str
    picture: str
    png: bytes
    names: list[str]
    category: str
    subcategory: str


class Archive:
    """The files of an npm package, read from its archive."""

    def __init__(self, folder: pathlib.Path, name: str, sha256: str):
        """Reads all files.

        Raises:
          UsageError: the archive is missing or another one.
        """
        path = folder / name
        if not path.is_file():
            raise UsageError(f"{path} does not exist; get it with npm pack, as --help says")
        content = path.read_bytes()
        if picture_digest(content) != sha256:
            raise UsageError(f"{path} has SHA-256 {picture_digest(content)}, but {sha256} is used")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = [member for member in archive if member.isfile()]
            self._files = {
                member.name.removeprefix("package/"): _content(archive, member)
                for member in members
            }

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        return self._files[name]

    def text(self, name: str) -> str:
        """Returns a file's text."""
        return self._files[name].decode().strip() + "\n"


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a regular file has content"
    return file.read()


def read_emoji(pictures: Archive, names: Archive) -> list[Emoji]:
    """Returns all emoji that have a picture of their own, in the order of the archive."""
    cldr = {each["hexcode"]: each["label"] for each in json.loads(names.read("en/data.json"))}
    typed = json.loads(names.read("en/shortcodes/emojibase.json"))
    found = []
    for each in json.loads(pictures.read("emoji.json")):
        if each["category"] == COMPONENT or not each["has_img_google"]:
            continue
        code = each["unified"] if each["unified"] in cldr else each["non_qualified"]
        short = [*each["short_names"], *_list(typed.get(code, []))]
        spoken = [name.replace("_", " ").replace("-", " ") for name in short]
        picture = f"img/google/64/{each['image']}"
        found.append(
            Emoji(
                each["unified"].lower(),
                picture,
                pictures.read(picture),
                _different([cldr[code], each["name"].lower(), *spoken]),
                each["category"],
                each["subcategory"],
            )
        )
    return found


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _different(names: list[str]) -> list[str]:
    """Returns the names without those that equal an earlier one but for case and spaces."""
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(text_key(name), name)
    return list(first.values())


def records(emoji: list[Emoji]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields split and record of each emoji that is no flag."""
    stored = [checked_image(each.png, Limits()) for each in emoji]
    pixels = np.stack([decode(each) for each in stored])
    groups = group_names([each.names[0] for each in emoji], pixels)
    for each, image, group in zip(emoji, stored, groups, strict=True):
        if each.category != FLAGS:
            yield (
                split_of(group, FOLD),
                {
                    "id": each.id,
                    "source": each.picture,
                    "sha256": picture_digest(each.png),
                    "image": image,
                    "group": group,
                    "label": each.category,
                    "subcategory": each.subcategory,
                    "names": each.names,
                    "alpha": alpha_of(each.png),
                },
            )


def alpha_of(png: bytes) -> bytes:
    """Returns a picture's transparency as a grey PNG: 0 where it is transparent, 255 where not."""
    buffer = io.BytesIO()
    alpha = Image.open(io.BytesIO(png)).convert("RGBA").getchannel("A")
    alpha.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def notices(pictures: Archive, names: Archive, licence: Archive) -> str:
    """Returns what must go with the pictures and names: who made them, and all licences in full."""
    apache = (TOP / "LICENSE").read_text().partition("END OF TERMS AND CONDITIONS")
    parts = [
        SUMMARY,
        "emoji-datasource-google 16.0.0\n\n" + pictures.text("LICENSE"),
        "emojibase-data 17.0.0\n\n" + names.text("LICENSE"),
        licence.text("LICENSE"),
        "".join(apache[:2]).strip("\n") + "\n",
    ]
    return f"\n{'-' * 80}\n\n".join(parts)


def build(folder: pathlib.Path, out: pathlib.Path) -> dict[str, Any]:
    """Writes the data set and returns its description.

    Raises:
      UsageError: an archive is missing or another one, or ``out`` exists.
    """
    archives = [Archive(folder, *each) for each in (PICTURES, NAMES, LICENCE)]
    emoji = read_emoji(*archives[:2])
    kept = list(records(emoji))
    groups = {record["group"] for _, record in kept}
    meta = {
        "source": f"{PICTURES[0]}, {NAMES[0]}",
        "format_read": "tools.emoji.build",
        "licence": "pictures: Apache-2.0; names: Unicode-3.0; see LICENSE",
        "left_out": {"flags": len(emoji) - len(kept)},
        "groups": len(groups),
        "classes": sorted({record["label"] for _, record in kept}),
    }
    meta["class_counts"] = {
        split: {
            label: sum(found == split and record["label"] == label for found, record in kept)
            for label in meta["classes"]
        }
        for split in sorted({split for split, _ in kept})
    }
    found = write_set(out, Kind.LABELLED_IMAGES, kept, shards=1, meta=meta, more=MORE)
    (out / "LICENSE").write_text(notices(*archives))
    return found


def main(arguments: list[str]) -> None:
    """Makes the data set and prints its description."""
    if len(arguments) != 2:
        raise UsageError("usage: python -m tools.emoji.build FOLDER_OF_THE_ARCHIVES OUT")
    print(json.dumps(build(*map(pathlib.Path, arguments)), indent=1))


if __name__ == "__main__":
    command.run(main, __doc__)
