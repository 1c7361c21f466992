"""Configuration files by short names: ``own:tiny`` is ``configs/own.py:tiny``."""

import pathlib
import re

from vlbeit_jax.config.nearest import spelt_like
from vlbeit_jax.errors import UsageError

PACKAGE = pathlib.Path(__file__).parents[1]
PACKAGED = PACKAGE / "configs"
SUFFIX = ".py"


def known() -> dict[str, pathlib.Path]:
    """Returns the configuration files that come with the package, by name."""
    # A built package holds the files; a folder "configs" beside it belongs to another package. A
    # clone has them beside the package, where they are edited.
    folder = PACKAGED if PACKAGED.is_dir() else PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob(f"[!_]*{SUFFIX}"))}


def resolved(value: str) -> str:
    """Returns a value of ``--config`` with the path of its file.

    Args:
      value: FILE or FILE:VARIANT. A file is a path, or the name of one that comes with the package.

    Raises:
      UsageError: there is no such file, or it has no variants although one is given.
    """
    file, colon, variant = value.partition(":")
    path, files = pathlib.Path(file), known()
    if not path.is_file():
        # From other folders than a clone, configs/own.py is the packaged file as well.
        packaged = files.get(path.name.removesuffix(SUFFIX))
        is_ours = file == path.name or path.parent == pathlib.Path("configs")
        if packaged is None or not is_ours:
            raise UsageError(_unknown(value, path, files))
        path = packaged
    if colon and not _has_variants(path):
        raise UsageError(f"--config={value}: {path.stem} has no variants; leave out :{variant}")
    return f"{path}{colon}{variant}"


def _unknown(value: str, path: pathlib.Path, files: dict[str, pathlib.Path]) -> str:
    name = path.name.removesuffix(SUFFIX)
    near = spelt_like(name, files)
    hint = f"did you mean {near}? " if near else ""
    return (
        f"--config={value}: {path} is no file and no configuration of the package; {hint}"
        f"The package has {', '.join(files)}"
    )


def _has_variants(path: pathlib.Path) -> bool:
    """Whether ``get_config`` takes an argument; the file is read and not run."""
    return re.search(r"^def get_config\(\s*\)", path.read_text(), re.MULTILINE) is None
