"""Command: weights in and out."""

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError

if TYPE_CHECKING:
    from vlbeit_jax.convert.formats import Export, Import

OVERVIEW = """Writes a pretraining run for PyTorch programs, checks that both sides compute the same, and reads the weights of others.

  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --verify
  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --data=data/pairs --data=data/texts     with DIR/evaluate.py's examples
  python -m vlbeit_jax.convert --from=RUN --to=hf-beit --out=DIR --verify
  python -m vlbeit_jax.convert --from=FILE --format=vqkd --out=RUN
  python -m vlbeit_jax.convert --from=FILE --format=dalle --out=DIR
  python -m vlbeit_jax.convert --list

--verify leaves DIR/verify.json and ends with exit code 1 above a difference of 1e-4."""

FROM = flags.DEFINE_string(
    "from", "", "workdir of a pretraining run; with --format, a safetensors or PyTorch file"
)
FORMAT = flags.DEFINE_string(
    "format", "", "what --from is, when it is another program's file, see --list"
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "of the model in the file, pixels, where it does not say; dalle: of the model that it is for, in patches of 16 (224)",
    lower_bound=16,
)
CODES = flags.DEFINE_integer(
    "codes",
    None,
    "visual tokens of the run to start, where the file has no head for them (8192)",
    lower_bound=2,
)
VOCABULARY = flags.DEFINE_integer(
    "vocabulary", None, "beit, beit2: word pieces of the run to start (64000)", lower_bound=300
)
TEXT_POSITIONS = flags.DEFINE_integer(
    "text_positions",
    None,
    "beit, beit2: longest text of the run to start (128); vlmo: that the bias table in the file is for, where the file does not say",
    lower_bound=3,
)
HEADS = flags.DEFINE_integer(
    "heads",
    None,
    "attention heads of the network in the file, if they are not 64 wide",
    lower_bound=1,
)
TO = flags.DEFINE_string("to", "", "format to write, see --list")
OUT = flags.DEFINE_string("out", "", "folder to make")
VERIFY = flags.DEFINE_bool("verify", False, "compare both sides on random inputs")
LIST = flags.DEFINE_bool(
    "list", False, "show every format: what is exact, what it needs, what it drops"
)
DATA = flags.DEFINE_multi_string(
    "data", [], "torch: prepared data whose held-back examples go along, may be repeated"
)
DRAWS = flags.DEFINE_integer(
    "draws", 4, "torch: masks drawn for every record of --data", lower_bound=1
)
OF_SOME_FORMATS = (IMAGE_SIZE, CODES, VOCABULARY, TEXT_POSITIONS, HEADS, VERIFY, DATA, DRAWS)


def main() -> None:
    """Lists the formats, writes one of them, or reads one."""
    from vlbeit_jax.convert.formats import EXPORTS, IMPORTS

    if LIST.value:
        for name, found in EXPORTS.items():
            print(
                f"--to={name}\n  exact: {found.exact}\n  needs: {found.needs}\n  drops: {found.drops}"
            )
            _print_flags(found.flags)
        for name, found in IMPORTS.items():
            print(
                f"--format={name}\n  exact: {found.exact}\n  gives: {found.gives}\n  drops: {found.drops}"
            )
            _print_flags(found.flags)
        return
    if bool(TO.value) == bool(FORMAT.value):
        raise UsageError(
            "give --to, the format to write, or --format, what --from is; --list shows them"
        )
    missing = [flag for flag, value in (("--from", FROM.value), ("--out", OUT.value)) if not value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing; --help shows how to use this")
    flag, name, known = (
        ("--to", TO.value, EXPORTS) if TO.value else ("--format", FORMAT.value, IMPORTS)
    )
    if name not in known:
        raise UsageError(f"{flag}={name}: no such format; there are {', '.join(known)}")
    for each in OF_SOME_FORMATS:
        if each.present and each.name not in known[name].flags:
            there = [
                f"--to={other}" for other, found in EXPORTS.items() if each.name in found.flags
            ]
            there += [
                f"--format={other}" for other, found in IMPORTS.items() if each.name in found.flags
            ]
            raise UsageError(
                f"--{each.name} goes with {', '.join(there)}, and has no meaning with {flag}={name}"
            )
    if TO.value:
        _write(pathlib.Path(FROM.value), EXPORTS[name], pathlib.Path(OUT.value))
    else:
        _read(pathlib.Path(FROM.value), IMPORTS[name], pathlib.Path(OUT.value))


def _print_flags(names: Sequence[str]) -> None:
    print(f"  flags: {', '.join(f'--{name}' for name in names)}")


def _read(file: pathlib.Path, kind: "Import", out: pathlib.Path) -> None:
    from vlbeit_jax.convert.files import check_manifest, give_memory_back
    from vlbeit_jax.convert.opening import open_tensors
    from vlbeit_jax.convert.unsaid import Unsaid

    give_memory_back()
    tensors = open_tensors(file)
    check_manifest(file)
    print(
        kind.read(
            tensors,
            file,
            Unsaid(
                IMAGE_SIZE.value, CODES.value, VOCABULARY.value, TEXT_POSITIONS.value, HEADS.value
            ),
            out,
        )
    )
    print(f"written to {out}, {kind.gives}")


def _write(place: pathlib.Path, export: "Export", out: pathlib.Path) -> None:
    from vlbeit_jax.convert.examples import write_examples
    from vlbeit_jax.convert.files import give_memory_back, write_manifest
    from vlbeit_jax.convert.source import open_run
    from vlbeit_jax.folders import published

    give_memory_back()
    run = open_run(place)
    if export.require is not None:
        export.require(run)
    absent = (
        [name for name in export.peers if importlib.util.find_spec(name) is None]
        if VERIFY.value
        else []
    )
    if absent:
        raise UsageError(
            f"--verify compares with {' and '.join(absent)}, not installed here; install it, or leave --verify out"
        )
    with published(out) as folder:
        if DATA.value:
            write_examples(place, DATA.value, DRAWS.value, folder)
        export.write(run, folder)
        write_manifest(folder)
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if VERIFY.value:
        found = export.check(run, out)
        good = found.write(out)
        print(f"against {found.peer}")
        for name, case in found.cases.items():
            print(
                f"{name:36s} max |difference| {case['max_abs']:.2e}, relative {case['max_rel']:.2e}"
            )
        if not good:
            raise SystemExit(
                f"error: differences above {found.summary()['limit']:g}; see {out / 'verify.json'}"
            )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
