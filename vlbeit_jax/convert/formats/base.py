"""What a format states about itself; ``convert --list`` prints it."""

import dataclasses
import pathlib
from collections.abc import Callable

from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.verify import Differences

# What an imported folder is for.
START = "a start for pretraining: run.start_from"
TEACHER = "a teacher for VQ-KD: task.model.teacher_weights of kind vqkd"
TOKENIZER = "a visual tokenizer: task.visual_tokenizer"


@dataclasses.dataclass(frozen=True)
class Export:
    """A format that runs are written in.

    Attributes:
      exact: whose outputs are equal on both sides.
      needs: what the format requires of a run, and which packages.
      drops: what the format does not hold.
      peers: packages that ``check`` runs the other program with.
      require: raises a ``UsageError`` for a run that the format cannot hold; None: it holds all.
      write: writes the files of a run into an existing folder.
      check: compares a written folder with JAX on random inputs.
      flags: the command's flags that this format uses, besides --from, --to and --out.
    """

    exact: str
    needs: str
    drops: str
    peers: tuple[str, ...]
    require: Callable[[Run], None] | None
    write: Callable[[Run, pathlib.Path], None]
    check: Callable[[Run, pathlib.Path], Differences]
    flags: tuple[str, ...] = ("verify",)


@dataclasses.dataclass(frozen=True)
class Import:
    """A format that is read from a file.

    Attributes:
      exact: what computes the same here as in the other program.
      gives: what the new folder is for.
      drops: what the file may hold that is not read, and what is initialised instead.
      read: (content, path, options, folder to make) to a report.
      flags: the command's flags that tell what the file may not.
    """

    exact: str
    gives: str
    drops: str
    read: Callable[[TensorFile, pathlib.Path, ImportOptions, pathlib.Path], Report]
    flags: tuple[str, ...]
