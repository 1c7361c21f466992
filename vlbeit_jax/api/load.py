"""Opens a run, an import or the packaged sample."""

import functools
import os
import pathlib
from typing import Any

from vlbeit_jax.api.base import Predictor
from vlbeit_jax.api.model import Model
from vlbeit_jax.api.retriever import Retriever
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import SAMPLE, run_folder
from vlbeit_jax.runtime.compilation_cache import use_compilation_cache
from vlbeit_jax.runtime.finetuned import EMA, RAW, FineTunedRun
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER, open_text_tokenizer
from vlbeit_jax.tasks.base import FineTuned
from vlbeit_jax.tasks.open_retrieval import OpenRetrieval
from vlbeit_jax.tasks.runs import read_network
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.saved_run import read_newest, restore

WEIGHTS = (RAW, EMA)


def load(
    place: str | os.PathLike[str],
    *,
    weights: str = RAW,
    text_tokenizer: str | os.PathLike[str] = "",
    compilation_cache: str = "auto",
    step: int = 0,
) -> Model:
    """Opens a model on the first device.

    Args:
      place: "sample" for the small model in the package; the workdir of a run of pretraining or
        fine-tuning; or an import made by ``python -m vlbeit_jax.convert``.
      weights: "raw", or "ema" for the averaged parameters of a fine-tuned run that has them.
      text_tokenizer: folder of the text tokenizer, for an import, which has none.
      compilation_cache: as ``config.run.compilation_cache``: where JAX keeps what it compiles;
        "": nowhere.
      step: of the checkpoint to open, and no other; 0: the newest one that is not damaged.

    Raises:
      Damaged: this step cannot be read, or none can.
      UsageError: there is no model in ``place``, it is a visual tokenizer, or it has no such
        ``weights``.
    """
    if not isinstance(place, str | os.PathLike):
        raise UsageError(f'place={place!r}: give "{SAMPLE}", or the folder of a run or an import')
    if weights not in WEIGHTS:
        raise UsageError(f"weights={weights!r}: choose one of {', '.join(map(repr, WEIGHTS))}")
    folder = run_folder(place)
    config, model = read_network(folder)
    use_compilation_cache(compilation_cache)
    opened = config.task.open(folder)
    text = _text_tokenizer(folder, text_tokenizer, model)
    if isinstance(opened, FineTuned):
        run = FineTunedRun.open(folder, config, opened, weights, step)
        predict = functools.partial(_predict, run)
        retriever = None
        if isinstance(opened, OpenRetrieval):
            retriever = Retriever(opened.task.network, opened.task.pair.text_length)
        # A run's own list, which the open task has read.
        classes = getattr(getattr(opened, "task", None), "class_names", ())
        needs = frozenset(opened.needs)
        predictor = Predictor(config.task.kind, opened.method, needs, predict, classes, retriever)
        return Model(str(folder), run.step, model, run.params, text, None, predictor)
    if weights != RAW:
        raise UsageError(f"weights={weights!r}: only fine-tuned runs have averaged parameters")
    wanted = {"params": opened.abstract_params()}
    step, trees = read_newest(folder, lambda each: restore(folder, each, wanted), step)
    visual = opened.visual if (folder / VISUAL_TOKENIZER).is_dir() else None
    return Model(str(folder), step, model, trees["params"], text, visual, None)


def _text_tokenizer(
    folder: pathlib.Path, given: str | os.PathLike[str], model: ModelConfig
) -> TextTokenizer | None:
    own = folder / TEXT_TOKENIZER
    if not given and not own.is_dir():
        return None
    return open_text_tokenizer(os.fspath(given) if given else own, model)


def _predict(run: FineTunedRun, records: Records, top: int) -> list[dict[str, Any]]:
    return list(run.predict(records, top, make_mesh(MeshConfig())))
