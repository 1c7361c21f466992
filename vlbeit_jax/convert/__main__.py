"""Command: exports runs to other programs, and imports their weights."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError

if TYPE_CHECKING:
    from vlbeit_jax.convert.formats import Export, Import

OVERVIEW = r"""Exports pretraining runs to PyTorch programs, and imports weights of other programs.

  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --verify
  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --data=data/pairs --data=data/texts
  python -m vlbeit_jax.convert --from=RUN --to=hf-beit --out=DIR --verify
  python -m vlbeit_jax.convert --from=FILE --format=vqkd --out=RUN
  python -m vlbeit_jax.convert --from=FILE --format=dalle --out=DIR
  python -m vlbeit_jax.convert --list

--data adds held-back examples, which DIR/evaluate.py scores. --verify computes the same inputs on
both sides, writes DIR/verify.json and exits with code 1 if outputs differ by more than 1e-4."""

FROM = flags.DEFINE_string(
    "from", "", "workdir of a pretraining run; with --format, a safetensors or PyTorch file"
)
FORMAT = flags.DEFINE_string("format", "", "format of another program's file (see --list)")
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "pixels per side of the model's images, if the file does not tell; dalle: of the model that it "
    "is for, in patches of 16 (224)",
    lower_bound=16,
)
CODES = flags.DEFINE_integer(
    "codes",
    None,
    "number of visual tokens, if the file has no head for them (8192)",
    lower_bound=2,
)
VOCABULARY = flags.DEFINE_integer(
    "vocabulary", None, "beit, beit2: number of word pieces (64000)", lower_bound=300
)
TEXT_POSITIONS = flags.DEFINE_integer(
    "text_positions",
    None,
    "beit, beit2: longest text (128); vlmo: longest text of the bias table, if the file does not "
    "tell",
    lower_bound=3,
)
HEADS = flags.DEFINE_integer(
    "heads",
    None,
    "attention heads of the network in the file, if they are not 64 wide",
    lower_bound=1,
)
TO = flags.DEFINE_string("to", "", "format to write (see --list)")
OUT = flags.DEFINE_string("out", "", "new folder")
VERIFY = flags.DEFINE_bool("verify", False, "compare both sides on random inputs")
LIST = flags.DEFINE_bool(
    "list", False, "show what each format converts exactly, what it needs and what it drops"
)
DATA = flags.DEFINE_multi_string(
    "data", [], "torch: prepared data whose held-back examples are added; may be repeated"
)
DRAWS = flags.DEFINE_integer("draws", 4, "torch: masks per record of --data", lower_bound=1)
OF_SOME_FORMATS = (IMAGE_SIZE, CODES, VOCABULARY, TEXT_POSITIONS, HEADS, VERIFY, DATA, DRAWS)


def main() -> None:
    """Lists the formats, writes one of them, or reads one."""
    from vlbeit_jax.convert.formats import EXPORTS, IMPORTS

    if LIST.value:
        _list(EXPORTS, IMPORTS)
        return
    if bool(TO.value) == bool(FORMAT.value):
        raise UsageError(
            "give either --to, the format to write, or --format, the format of --from; --list "
            "shows them"
        )
    missing = [flag for flag, value in (("--from", FROM.value), ("--out", OUT.value)) if not value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing; --help shows examples")
    source, out = pathlib.Path(FROM.value), pathlib.Path(OUT.value)
    if TO.value:
        _check_flags("--to", TO.value, EXPORTS, EXPORTS, IMPORTS)
        _export(source, EXPORTS[TO.value], out)
    else:
        _check_flags("--format", FORMAT.value, IMPORTS, EXPORTS, IMPORTS)
        _import(source, IMPORTS[FORMAT.value], out)


def _list(exports: "Mapping[str, Export]", imports: "Mapping[str, Import]") -> None:
    for name, format in exports.items():
        print(f"--to={name}\n  exact: {format.exact}\n  needs: {format.needs}")
        _print_rest(format)
    for name, format in imports.items():
        print(f"--format={name}\n  exact: {format.exact}\n  gives: {format.gives}")
        _print_rest(format)


def _print_rest(format: "Export | Import") -> None:
    print(f"  drops: {format.drops}")
    print(f"  flags: {', '.join(f'--{name}' for name in format.flags)}")


def _check_flags(
    flag: str,
    name: str,
    known: "Mapping[str, Export | Import]",
    exports: "Mapping[str, Export]",
    imports: "Mapping[str, Import]",
) -> None:
    """Raises a ``UsageError`` for an unknown format or for a flag that it does not use."""
    if name not in known:
        raise UsageError(f"{flag}={name}: no such format; choose from {', '.join(known)}")
    for each in OF_SOME_FORMATS:
        if each.present and each.name not in known[name].flags:
            users = [f"--to={key}" for key, format in exports.items() if each.name in format.flags]
            users += [
                f"--format={key}" for key, format in imports.items() if each.name in format.flags
            ]
            raise UsageError(f"--{each.name} is for {', '.join(users)}, not for {flag}={name}")


def _import(file: pathlib.Path, format: "Import", out: pathlib.Path) -> None:
    from vlbeit_jax.convert.files import check_manifest
    from vlbeit_jax.convert.import_options import ImportOptions
    from vlbeit_jax.convert.read_tensors import read_tensors

    content = read_tensors(file)
    check_manifest(file)
    options = ImportOptions(
        image_size=IMAGE_SIZE.value,
        codes=CODES.value,
        vocabulary=VOCABULARY.value,
        text_positions=TEXT_POSITIONS.value,
        heads=HEADS.value,
    )
    print(format.read(content, file, options, out))
    print(f"written to {out}, {format.gives}")


def _export(run_folder: pathlib.Path, format: "Export", out: pathlib.Path) -> None:
    from vlbeit_jax.convert.examples import write_examples
    from vlbeit_jax.convert.files import write_manifest
    from vlbeit_jax.convert.source import read_run
    from vlbeit_jax.folders import published

    run = read_run(run_folder)
    if format.require is not None:
        format.require(run)
    absent = [name for name in format.peers if importlib.util.find_spec(name) is None]
    if VERIFY.value and absent:
        raise UsageError(
            f"--verify needs {' and '.join(absent)}. Install it, or leave --verify out"
        )
    with published(out) as folder:
        if DATA.value:
            write_examples(run_folder, DATA.value, DRAWS.value, folder)
        format.write(run, folder)
        write_manifest(folder)
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if not VERIFY.value:
        return
    differences = format.check(run, out)
    is_within_limit = differences.write(out)
    print(f"against {differences.peer}")
    for name, case in differences.cases.items():
        print(f"{name:36s} max |difference| {case['max_abs']:.2e}, relative {case['max_rel']:.2e}")
    if not is_within_limit:
        limit = differences.summary()["limit"]
        raise SystemExit(f"error: differences above {limit:g}; see {out / 'verify.json'}")


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
