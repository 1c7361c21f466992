"""What a format states about itself; ``convert --list`` prints it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Generic, TypeVar

from vlbeit_jax.convert.files import check_manifest
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import TensorFile, read_tensors
from vlbeit_jax.convert.rules import Report
from vlbeit_jax.convert.verify import Differences

# What an imported folder is for.
START = "a start for pretraining: run.start_from"
TEACHER = "a teacher of visual tokenizers: task.model.teacher_weights"
TOKENIZER = "a visual tokenizer: task.visual_tokenizer"
R = TypeVar("R")  # ``source.Run`` or ``finetuned.FineTunedModel``.


@dataclasses.dataclass(frozen=True)
class Export(Generic[R]):
    """A format that runs of one kind, pretraining or fine-tuned, are written in.

    Attributes:
      takes: the runs that the format can hold.
      exact: whose outputs are equal on both sides.
      needs: what the format requires of a run, and which packages.
      drops: what the format does not hold.
      peers: packages that ``check`` runs the other program with.
      require: raises a ``UsageError`` for a run that the format cannot hold; None: it holds all.
      write: writes the files of a run into an existing folder.
      check: compares a written folder with JAX on random inputs.
      flags: the command's flags that this format uses, besides --from, --to and --out.
      packages: that ``write`` needs, and that the package itself does not.
    """

    takes: str
    exact: str
    needs: str
    drops: str
    peers: tuple[str, ...]
    require: Callable[[R], None] | None
    write: Callable[[R, pathlib.Path], None]
    check: Callable[[R, pathlib.Path], Differences]
    flags: tuple[str, ...] = ("verify",)
    packages: tuple[str, ...] = ()

    @property
    def needs_or_gives(self) -> str:
        """What ``--list`` tells of exports alone."""
        return f"needs: {self.needs}"


@dataclasses.dataclass(frozen=True)
class Import:
    """A format that is read from a file.

    Attributes:
      exact: what computes the same here as in the other program.
      gives: what the new folder is for.
      drops: what the file may hold that is not read, and what is initialised instead.
      read: (content, path, options, folder to make) to a report.
      flags: the command's flags that tell what the file may not.
      parts: keys under which the wanted weights lie in a PyTorch file that holds several networks,
        the first choice first.
      prefixes: to take off the tensors' names, besides the common ones.
    """

    exact: str
    gives: str
    drops: str
    read: Callable[[TensorFile, pathlib.Path, ImportOptions, pathlib.Path], Report]
    flags: tuple[str, ...]
    parts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def run(self, path: pathlib.Path, options: ImportOptions, out: pathlib.Path) -> Report:
        """Imports a file into a new folder.

        Raises:
          UsageError: the file cannot be read or does not fit, or ``out`` exists.
        """
        content = read_tensors(path, self.parts, self.prefixes)
        check_manifest(path)
        return self.read(content, path, options, out)

    @property
    def needs_or_gives(self) -> str:
        """What ``--list`` tells of imports alone."""
        return f"gives: {self.gives}"
