"""Packs a pretraining run into a small folder: parameters in half precision, no optimizer.

    python -m tools.pack_model RUN OUT

RUN is a finished pretraining run. OUT is a run that vlbeit_jax.load, evaluate and convert open like
any other; it cannot be resumed. Its parameters are those of RUN, rounded to float16, which halves
their size. vlbeit_jax/sample_model was made with this command from the run of launch/sample.sh.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from tools import command
from vlbeit_jax.data.splits import SEEN_FOLDER
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.visual_tokens import keep_copy, open_visual_tokens
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import CHECKPOINTS, finished_step

HERE = "unknown"  # Stands for the folders of the machine that trained the run.


def pack(run: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the packed run.

    Raises:
      UsageError: ``run`` is not a finished pretraining run with both tokenizers.
    """
    opened = open_run(run)
    finished_step(run, opened.config.run.steps)
    for name in (TEXT_TOKENIZER, VISUAL_TOKENIZER):
        if not (run / name).is_dir():
            raise UsageError(f"{run} has no {name}, so nothing could use the packed model alone")
    with contextlib.closing(Checkpointer(run / CHECKPOINTS, read_only=True)) as checkpointer:
        description = checkpointer.describe(opened.step)
    # The optimizer's state and the state of the data are left out, so the folder is not resumed.
    told = ("trained_on", "step", "versions")
    kept = {name: description[name] for name in told if name in description}
    with published(out) as folder:
        write_config(folder, _without_folders(opened.config))
        checkpointer = Checkpointer(folder / CHECKPOINTS, alone=True)
        checkpointer.save(opened.step, {"params": halved(opened.params)}, kept)
        checkpointer.close()
        shutil.copytree(run / TEXT_TOKENIZER, folder / TEXT_TOKENIZER)
        if (run / SEEN_FOLDER).is_dir():
            shutil.copytree(run / SEEN_FOLDER, folder / SEEN_FOLDER)
        visual = open_visual_tokens(run / VISUAL_TOKENIZER)
        saved = visual.saved | {"params": halved(visual.saved["params"])}
        keep_copy(visual._replace(saved=saved), folder / VISUAL_TOKENIZER)


def halved(tree: Tree) -> Tree:
    """Returns arrays in float16.

    Raises:
      UsageError: one has values that float16 cannot hold.
    """

    def half(leaf: Any) -> np.ndarray:
        found = np.asarray(leaf).astype(np.float16)
        if not np.isfinite(found).all():
            raise UsageError("a parameter is too large for float16, so the run cannot be packed")
        return found

    return jax.tree.map(half, tree)


def _without_folders(config: Any) -> Any:
    """Returns the configuration without the folders of the machine that trained the run."""
    task = config.task
    streams = {
        name: dataclasses.replace(stream, sources=tuple(map(_shown, stream.sources)))
        for name in ("image", "text", "pair")
        if (stream := getattr(task, name)).sources
    }
    task = dataclasses.replace(
        task, **streams, text_tokenizer=TEXT_TOKENIZER, visual_tokenizer=VISUAL_TOKENIZER
    )
    return dataclasses.replace(config, task=task)


def _shown(source: str) -> str:
    return source if source.startswith("sample:") else HERE


def main(arguments: list[str]) -> None:
    """Packs RUN into OUT."""
    if len(arguments) != 2:
        raise UsageError("usage: python -m tools.pack_model RUN OUT")
    pack(*map(pathlib.Path, arguments))


if __name__ == "__main__":
    command.run(main, __doc__)
