"""Which format an input has: found by its content, or compared with what the user has said."""

import pathlib
from collections.abc import Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import FORMATS, OFFICIAL
from vlbeit_jax.prepare.formats.base import Found
from vlbeit_jax.prepare.formats.links import is_link, links_only
from vlbeit_jax.prepare.formats.look import is_hidden, look
from vlbeit_jax.prepare.formats.pictures import begins_as_picture, is_picture
from vlbeit_jax.prepare.formats.sidecars import is_sidecar
from vlbeit_jax.types import Kind

AUTO, GENERAL = "auto", "text"
LOOKED_AT = 8  # Inputs that are looked at, if there are many.
# Formats that may be asked for where another one is recognised: both can read the same files.
ALIKE = {
    "jsonl": {"json", "beit3"},
    "json": {"jsonl"},
    "csv": {"tsv"},
    "tsv": {"csv"},
    "folder": {"imagenet", "imagefolder"},
    "vqav2-trainval": {"vqav2"},
}
# What no format reads, by its first bytes, and what to do about it.
FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it, and give the folder",
    b"7z\xbc\xaf": "a 7z archive; unpack it, and give the folder",
    b"Rar!": "a rar archive; unpack it, and give the folder",
    b"%PDF": "a PDF document; convert it to text",
    b"\x93NUMPY": "a NumPy array; store its pictures as files in a folder",
    b"\x80\x02": "a Python pickle, which this program does not load, because that runs its code",
    b"\x80\x03": "a Python pickle, which this program does not load, because that runs its code",
    b"\x80\x04": "a Python pickle, which this program does not load, because that runs its code",
    b"SQLite format 3": "an SQLite database; export its table as CSV",
}


def recognise(given: str, paths: Sequence[pathlib.Path], kind: Kind, force: bool = False) -> str:
    """Returns the name of the format to read inputs in.

    Args:
      given: what the user said: a name, or "auto".
      paths: the inputs.
      kind: of the records to make.
      force: whether to keep a name that does not fit the content.

    Raises:
      UsageError: the format is not recognised, or is not the given one; or inputs differ.
    """
    if given != AUTO and force:
        return given
    names: dict[str, pathlib.Path] = {}
    for path in _some([path for path in paths if not _is_beside(path)] or list(paths)):
        try:
            found = look(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        name = _name(found, kind) if given == AUTO else _checked(given, found, kind)
        names.setdefault(name, path)
    if len(names) > 1:
        listed = "; ".join(f"{path} looks like {name}" for name, path in names.items())
        raise UsageError(f"the inputs have different formats: {listed}; prepare one set of each")
    return next(iter(names))


def _some(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the first, the last and some inputs between them."""
    if len(paths) <= LOOKED_AT:
        return list(paths)
    return [paths[place * (len(paths) - 1) // (LOOKED_AT - 1)] for place in range(LOOKED_AT)]


def _is_beside(path: pathlib.Path) -> bool:
    return is_hidden(path.name) or (path.is_file() and is_sidecar(path))


def _fitting(found: Found) -> list[str]:
    return [name for name, form in FORMATS.items() if form.sniff(found)]


def _name(found: Found, kind: Kind) -> str:
    fitting = _fitting(found)
    if GENERAL in fitting and (len(fitting) > 1 or kind not in FORMATS[GENERAL].KINDS):
        fitting.remove(GENERAL)  # Almost anything may be read as text, if it is nothing else.
    usable = [name for name in fitting if kind in FORMATS[name].KINDS]
    if usable:
        _require_captions(usable[0], found, kind)
        return usable[0]
    if fitting:
        kinds = ", ".join(sorted(FORMATS[fitting[0]].KINDS))
        raise UsageError(
            f"{found.path}: this looks like the format {fitting[0]}, which can become --kind="
            f"{kinds}, but --kind={kind} was asked for"
        )
    raise UsageError(f"{found.path}: its format is not recognised: it is {described(found)}")


def _require_captions(name: str, found: Found, kind: Kind) -> None:
    """Raises a ``UsageError`` if a folder has pictures and an index of them, but no captions."""
    if name != "folder" or kind is not Kind.PAIRS:
        return
    stems = {
        pathlib.PurePosixPath(each).with_suffix("") for each in found.names if is_picture(each)
    }
    beside = {pathlib.PurePosixPath(each) for each in found.names}
    if any(stem.with_suffix(suffix) in beside for stem in stems for suffix in (".txt", ".json")):
        return
    for file in found.samples:
        names = [each for each in _fitting(file) if each not in (GENERAL, "folder")]
        if names and not begins_as_picture(file.head):
            raise UsageError(
                f"{found.path}: this folder has pictures without captions beside them, and "
                f"{file.path.name}, which looks like the format {names[0]}; name that file: "
                f"--input={file.path}"
            )


def _checked(given: str, found: Found, kind: Kind) -> str:
    """Returns the given name unless the input is of another format.

    A published benchmark is not checked here: its own format says what is wrong with its files.
    """
    if given in OFFICIAL:
        return given
    fitting = _fitting(found)
    others = [name for name in fitting if name not in (given, GENERAL)]
    if ALIKE.get(given, set()) & set(others):
        return given
    if given in fitting and not (given == GENERAL and others):
        return given
    # A format of files, and the folder that holds one of them.
    for file in found.samples:
        if FORMATS[given].sniff(file) and not begins_as_picture(file.head):
            raise UsageError(
                f"{found.path} is a folder, but --format={given} reads a file; name it: "
                f"--input={file.path}"
            )
    if others:
        usable = [name for name in others if kind in FORMATS[name].KINDS] or others
        raise UsageError(
            f"{found.path}: this does not look like --format={given}, but like {usable[0]}; type "
            f"--format={usable[0]}, or --force to read it as {given} all the same"
        )
    foreign = begins_as_picture(found.head) or found.head.startswith(tuple(FOREIGN))
    if foreign or (given == GENERAL and given not in fitting and found.head):
        raise UsageError(
            f"{found.path}: this does not look like --format={given}: it is {described(found)}"
        )
    return given  # The format says in detail what is wrong with it.


def described(found: Found) -> str:
    """Returns what an input is, in words, and what to do about it."""
    known = f"If it is one of these, say so with --format: {', '.join(sorted(FORMATS))}"
    if found.is_folder:
        if not found.names:
            return "an empty folder"
        return f"a folder with files such as {found.names[0]}, of no known format. {known}"
    head = found.head
    if not head:
        return "an empty file, or one that is damaged"
    if begins_as_picture(head):
        return "a picture; give the folder that holds it, with --format=folder"
    if foreign := next((said for magic, said in FOREIGN.items() if head.startswith(magic)), ""):
        return foreign
    if head.lstrip()[:15].lower().startswith((b"<html", b"<!doctype html")):
        return "a web page, perhaps the error of a download; download the file again"
    if head.lstrip().startswith(b"<mediawiki"):
        return "a dump of a wiki; extract its texts with WikiExtractor first"
    if is_link(head.partition(b"\n")[0].decode("utf-8", "replace")):
        return str(links_only(found.path, "txt", "", ""))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
    if head.lstrip().startswith((b"{", b"[")):
        return (
            "JSON whose fields have no name that is known here; name them with --image_column and "
            "--caption_column, and say --format=json"
        )
    if FORMATS[GENERAL].sniff(found):
        return "plain text, which can become --kind=texts"
    if b"\0" not in head:
        return "text in an encoding that is not UTF-8; convert it with iconv"
    return f"a file that begins with the bytes {head[:8].hex(' ')}. {known}"
