"""Command: exports runs to other programs, and imports their weights."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.copies import local_copy, on_disk
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published, run_folder
from vlbeit_jax.places import place

if TYPE_CHECKING:
    from vlbeit_jax.convert.finetuned import FineTunedModel
    from vlbeit_jax.convert.formats.base import Export, Import
    from vlbeit_jax.convert.source import Run

OVERVIEW = r"""Exports runs to PyTorch programs, and imports weights of other programs.

  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --verify
  python -m vlbeit_jax.convert --from=RUN --to=torch --out=DIR --data=data/pairs --data=data/texts
  python -m vlbeit_jax.convert --from=RUN --to=onnx --out=DIR --verify
  python -m vlbeit_jax.convert --from=RUN --to=hf-beit --out=DIR --verify
  python -m vlbeit_jax.convert --from=FT --to=torch --out=DIR --data=data/birds --verify
  python -m vlbeit_jax.convert --from=FILE --format=vqkd --out=RUN
  python -m vlbeit_jax.convert --from=FILE --format=dalle --out=DIR
  python -m vlbeit_jax.convert --list

RUN is a pretraining run, FT is a fine-tuned run, FILE holds another program's weights. --data adds
held-out examples, which DIR/evaluate.py scores. --verify gives both sides the same inputs, writes
DIR/verify.json, and exits with code 1 if outputs differ by more than 1e-4. docs/convert.md says
which format you need."""

FROM = flags.DEFINE_string(
    "from", "", "workdir of a run, or sample; with --format: a safetensors or PyTorch file"
)
FORMAT = flags.DEFINE_string("format", "", "format of another program's file (see --list)")
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "side of the model's images in pixels, if the file does not tell; dalle: side of the images of "
    "the model that the tokenizer is for, whose patches have 16 pixels (224)",
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
    "beit, beit2: longest text in word pieces (128); vlmo: longest text of the bias table, if the "
    "file does not tell",
    lower_bound=3,
)
HEADS = flags.DEFINE_integer(
    "heads",
    None,
    "number of attention heads of the network in the file, if they are not 64 wide",
    lower_bound=1,
)
ACTIVATION = flags.DEFINE_enum(
    "activation",
    None,
    ["gelu", "quick_gelu"],
    "clip: activation of the network, if no configuration lies beside the file; quick_gelu for "
    "OpenAI's networks, gelu for open_clip's unless the model's name ends in -quickgelu",
)
CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "beit3-imagenet: file with the names of the classes in the order of the logits, one a line or "
    "a JSON list; without it, the names are numbers",
)
ANSWERS = flags.DEFINE_string(
    "answers",
    None,
    "beit3-vqa: file with the answers in the order of the logits: BEiT-3's answer2label.txt, one a "
    "line, or a JSON list",
)
TEXT_TOKENIZER = flags.DEFINE_string(
    "text_tokenizer",
    None,
    "beit3...: BEiT-3's SentencePiece file, beit3.spm, which becomes the run's text tokenizer",
)
TO = flags.DEFINE_string("to", "", "format to write (see --list)")
OUT = flags.DEFINE_string("out", "", "folder to make")
VERIFY = flags.DEFINE_bool("verify", False, "compare both sides on random inputs")
LIST = flags.DEFINE_bool(
    "list", False, "show what each format converts exactly, what it needs and what it drops"
)
DATA = flags.DEFINE_multi_string(
    "data", [], "torch: prepared data set whose held-out examples are added; may be repeated"
)
DRAWS = flags.DEFINE_integer(
    "draws", 4, "torch, pretraining runs: masks drawn for each record of --data", lower_bound=1
)
SPLIT = flags.DEFINE_enum(
    "split",
    "",
    ["", "train", "validation", "test"],
    "torch, fine-tuned runs: part of --data; empty: test if there is one, otherwise validation",
)
WEIGHTS = flags.DEFINE_enum(
    "weights", "raw", ["raw", "ema"], "fine-tuned runs: the parameters (raw) or their average (ema)"
)
STEP = flags.DEFINE_integer(
    "step", 0, "checkpoint to read, and no other; 0: the newest one that is not damaged", 0
)


def main() -> None:
    """Lists the formats, writes one of them, or reads one."""
    from vlbeit_jax.convert.formats import EXPORTS, IMPORTS

    if LIST.value:
        _list()
        return
    if bool(TO.value) == bool(FORMAT.value):
        raise UsageError(
            "give either --to, the format to write, or --format, the format of --from; --list "
            "shows them"
        )
    if missing := [f"--{each.name}" for each in (FROM, OUT) if not each.value]:
        raise UsageError(f"{' and '.join(missing)} missing; --help shows examples")
    flag, known = (TO, EXPORTS) if TO.value else (FORMAT, IMPORTS)
    chosen = f"--{flag.name}={flag.value}"
    if flag.value not in known:
        raise UsageError(f"{chosen}: no such format; choose from {', '.join(known)}")
    _check_flags(chosen, _fine_tuned(flag.value))
    for option in (SPLIT, DRAWS):
        if option.present and not DATA.value:
            raise UsageError(f"--{option.name} says how --data is evaluated; give --data too")
    out = place(OUT.value, "--out")
    if TO.value:
        _export(run_folder(FROM.value), TO.value, out)
    else:
        _import(place(FROM.value, "--from"), IMPORTS[FORMAT.value], out)


def _fine_tuned(name: str) -> str:
    """Returns how messages call a format when it holds fine-tuned runs."""
    return f"--to={name} (fine-tuned)"


def _formats() -> "dict[str, Export[Any] | Import]":
    """Returns all formats by the names that messages give them."""
    from vlbeit_jax.convert.formats import EXPORTS, FINE_TUNED_EXPORTS, IMPORTS

    return {
        **{f"--to={name}": format for name, format in EXPORTS.items()},
        **{_fine_tuned(name): format for name, format in FINE_TUNED_EXPORTS.items()},
        **{f"--format={name}": format for name, format in IMPORTS.items()},
    }


def _list() -> None:
    for name, format in _formats().items():
        print(f"{name}\n  exact: {format.exact}\n  {format.needs_or_gives}")
        print(f"  drops: {format.drops}")
        print(f"  flags: {', '.join(f'--{flag}' for flag in format.flags)}")


def _check_flags(*chosen: str) -> None:
    """Raises a ``UsageError`` for a flag that none of the formats uses; the first is named."""
    formats = _formats()
    for flag in dict.fromkeys(flag for format in formats.values() for flag in format.flags):
        users = [name for name, format in formats.items() if flag in format.flags]
        if flags.FLAGS[flag].present and not set(users) & set(chosen):
            raise UsageError(f"--{flag} is for {', '.join(users)}, not for {chosen[0]}")


def _import(file: pathlib.Path, format: "Import", out: pathlib.Path) -> None:
    from vlbeit_jax.convert.import_options import ImportOptions
    from vlbeit_jax.convert.importing import REPORT_FILE

    # Each option is the flag of its name.
    names = [field.name for field in dataclasses.fields(ImportOptions)]
    options = ImportOptions(**{name: flags.FLAGS[name].value for name in names})
    with on_disk(file, beside="*.json") as opened:  # A format may look for its settings there.
        report = format.run(opened, options, out)
    print(f"{report}\n{report.counts()} ({REPORT_FILE} in the new folder has this list)")
    print(f"written to {out}, {format.gives}")


def _export(run: pathlib.Path, name: str, out: pathlib.Path) -> None:
    from vlbeit_jax.convert.formats import EXPORTS, FINE_TUNED_EXPORTS
    from vlbeit_jax.convert.source import is_pretraining, read_run

    if is_pretraining(run):
        _check_flags(f"--to={name}")
        exported = read_run(run, STEP.value)
        _write(exported, EXPORTS[name], _add_masked(run, exported.step), out)
        return
    from vlbeit_jax.convert.finetuned import read_finetuned, write_evaluation

    source = read_finetuned(run, WEIGHTS.value, STEP.value)
    if name not in FINE_TUNED_EXPORTS:
        takers = (f"--to={key} ({each.takes})" for key, each in FINE_TUNED_EXPORTS.items())
        raise UsageError(
            f"--to={name} takes {EXPORTS[name].takes}, but --from={run} holds a run of "
            f"task {source.run.config.task.kind!r}; there are {' and '.join(takers)}"
        )
    _check_flags(_fine_tuned(name))

    def add_evaluation(folder: pathlib.Path) -> None:
        write_evaluation(source, DATA.value, SPLIT.value, folder)

    _write(source, FINE_TUNED_EXPORTS[name], add_evaluation, out)


def _add_masked(run: pathlib.Path, step: int) -> "Callable[[pathlib.Path], None]":
    from vlbeit_jax.convert.examples import write_evaluation

    return lambda folder: write_evaluation(run, DATA.value, DRAWS.value, folder, step)


def _write(
    source: "Run | FineTunedModel",
    format: "Export[Any]",
    add_data: "Callable[[pathlib.Path], None]",
    out: pathlib.Path,
) -> None:
    """Writes a run, with the examples of --data, and compares it with JAX if that is asked for."""
    from vlbeit_jax.convert.files import write_manifest
    from vlbeit_jax.convert.verify import require_agreement

    if format.require is not None:
        format.require(source)
    _require_packages(f"--to={TO.value}", format.packages)
    if VERIFY.value:
        _require_packages("--verify", format.peers)
    with published(out) as folder:
        if DATA.value:
            add_data(folder)
        format.write(source, folder)
        write_manifest(folder)
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if VERIFY.value:
        with local_copy(out) as folder:
            require_agreement(format.check(source, folder), out)


def _require_packages(wanted: str, packages: "tuple[str, ...]") -> None:
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        command = f"python -m pip install {' '.join(absent)}"
        raise UsageError(f"{wanted} needs {' and '.join(absent)}: {command}, or leave it out")


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
