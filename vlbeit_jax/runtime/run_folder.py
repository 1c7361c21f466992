"""What a run writes to its folder first: lock and configuration."""

import json
import pathlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from vlbeit_jax.config.parse import flat, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import NO_LOCKS
from vlbeit_jax.places import appearing, held
from vlbeit_jax.redact import redacted
from vlbeit_jax.storage import UNREAD, told_of_storage
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.saved_run import CONFIG_FILE

LOCK_FILE, UNWRITTEN = ".lock", f".{CONFIG_FILE}.tmp"


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Creates the folder of a new run, or reopens that of an earlier start, and locks it.

    Raises:
      UsageError: the folder cannot be written to, holds something else, or is in use by another
        process.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The second one is left by a first start that was killed, or that found no room.
            has_files = any(path.name not in (LOCK_FILE, UNWRITTEN) for path in folder.iterdir())
            if has_files and not (folder / CONFIG_FILE).is_file():
                raise UsageError(
                    f"--workdir={folder}: holds files but no {CONFIG_FILE}, so it is not the "
                    "folder of a run; choose another one"
                )
            stack.enter_context(held(folder / LOCK_FILE))
        except BlockingIOError as error:
            raise UsageError(
                f"--workdir={folder}: another process is training in it; let it finish, or choose "
                "another folder"
            ) from error
        except OSError as error:
            why = (
                f"cannot be written to ({error}); give this user the right, or name another folder"
            )
            if error.errno in NO_LOCKS:
                why = (
                    f"its file system has no locks ({error}), which keep two runs out of one "
                    "folder; mount it with locks (Lustre: -o flock), or use another one"
                )
            raise UsageError(f"--workdir={folder}: {why}") from error
        yield


def write_config(folder: pathlib.Path, config: Config) -> None:
    """Writes the whole configuration to the folder, without secrets, atomically."""
    with appearing(folder / CONFIG_FILE) as out:
        out.write(json.dumps(redacted(to_dict(config)), indent=1) + "\n")


def config_changes(folder: pathlib.Path, config: Config) -> list[str]:
    """Returns how ``config`` differs from the folder's ``config.json``, a line per field.

    The file is compared as it is, so that one of an older version, with other fields, is fine.

    Raises:
      UsageError: the file is damaged, or this user may not read it.
      StorageError: it cannot be read now.
    """
    path = folder / CONFIG_FILE
    try:
        saved = flat(json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError) as error:
        if told := told_of_storage(error, path, UNREAD):
            raise told from error
        raise UsageError(
            f"{path} is damaged ({error}); to accept the given configuration, replace its content "
            "by {} and run the command again"
        ) from error
    # As in the file: tuples become lists, and secrets are left out.
    given = flat(json.loads(json.dumps(redacted(to_dict(config)))))
    return [
        f"{name}: {_shown(saved, name)} in {CONFIG_FILE}, {_shown(given, name)} now"
        for name in sorted({*saved, *given})
        if _shown(saved, name) != _shown(given, name)
    ]


def _shown(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "no such field"
