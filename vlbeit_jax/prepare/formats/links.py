"""Lists of links: the pictures have to be downloaded first, which img2dataset does."""

import pathlib
import re
import shlex

from vlbeit_jax.errors import UsageError

LINK = re.compile(r"\s*(https?|ftp|s3|gs)://\S+\s*$", re.IGNORECASE)


def is_link(value: object) -> bool:
    """Returns whether a value is an address."""
    return isinstance(value, str) and bool(LINK.match(value))


def links_only(
    path: pathlib.Path, file_format: str, link: str, caption: str, header: str = ""
) -> UsageError:
    r"""Returns the error that says how to download the pictures of a list.

    Args:
      path: of the list.
      file_format: as img2dataset calls it: csv, tsv, json, jsonl, parquet, txt.
      link: column of the links.
      caption: column of the captions; empty: there is none.
      header: line that has to be written before the first one, with ``\t`` for a tab; empty: the
        list has one.
    """
    place = shlex.quote(str(path))
    out = shlex.quote(str(path.with_name(f"{path.name.partition('.')[0]}-pictures")))
    columns = [] if file_format == "txt" else [f"--url_col={link}"]
    columns += [f"--caption_col={caption}"] if caption else []
    first = f"\n  sed -i '1s/^/{header}\\n/' {place}" if header else ""
    command = " ".join(["img2dataset", f"--url_list={place}", f"--input_format={file_format}"])
    size = "--image_size=384 --resize_mode=keep_ratio --resize_only_if_bigger=True"
    return UsageError(
        f"{path}: this is a list of links, without the pictures. Download them first (pip install "
        f"img2dataset):{first}\n  {' '.join([command, *columns])} \\\n      "
        f"--output_format=webdataset --output_folder={out} {size}\n"
        f"Then prepare them with --format=webdataset --input={out}"
    )
