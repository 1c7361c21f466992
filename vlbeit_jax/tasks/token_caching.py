"""Visual tokens of every view of a configuration's images, computed once for all epochs."""

import functools
from collections.abc import Iterator
from contextlib import closing

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.config.streams import ImageStreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.cached_tokens import CachedTokens
from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.data.sampling import ViewExamples
from vlbeit_jax.data.source import TRAIN, PreparedSet
from vlbeit_jax.data.sources import open_sources
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.progress import counted
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.mesh import (
    on_mesh,
    padded_batch,
    put_batch,
    put_replicated,
    replicated,
)


class TokenCacher:
    """Makes the parts of ``task.visual_tokens`` that a configuration asks for.

    Attributes:
      work: every part that training will read, in order, as (cached tokens, set, part number).
    """

    def __init__(self, config: Config, mesh: Mesh):
        """Opens tokenizer and data.

        Raises:
          UsageError: one is missing or does not fit the model.
        """
        task = config.task
        if not isinstance(task, Pretrain):
            raise UsageError(f"config.task.kind={task.kind}: only pretraining uses visual tokens")
        if not task.visual_tokens:
            raise UsageError("config.task.visual_tokens is empty: name the folder for the tokens")
        sections = {name: getattr(task, name) for name in task.used_streams}
        streams = [name for name, each in sections.items() if isinstance(each, ImageStreamConfig)]
        if not streams:
            raise UsageError(
                f"task.schedule={task.schedule} has no images, and so no visual tokens"
            )
        self._config, self._mesh = config, mesh
        self._model = task.open_for(streams)
        self._makes: dict[str, str] = {}
        self.work: list[tuple[CachedTokens, PreparedSet, int]] = []
        for stream in streams:
            for prepared in open_sources(stream, self._model.stream_config(stream)):
                cached = self._model.cached_tokens(stream, prepared)
                if (
                    cached.folder.name not in self._makes
                ):  # Two streams that see the same views of a set share them.
                    self._makes[cached.folder.name] = stream
                    self.work += [(cached, prepared, part) for part in cached.parts]
        tokenizer = self._model.visual.tokenizer
        self._encode = jax.jit(functools.partial(encode, tokenizer), out_shardings=replicated(mesh))
        self._frozen = put_replicated(self._model.tokenizer_params, mesh)

    def make(self, cached: CachedTokens, prepared: PreparedSet, part: int) -> int:
        """Computes one part and keeps it; returns how many views it holds."""
        cached.make_folder()  # Before the work, so that a folder without write access fails now.
        stream, which = self._makes[cached.folder.name], cached.records_of(part)
        rows = padded_batch(self._model.stream_config(stream).batch_size, self._mesh)
        make = self._model.make_example(stream, True)
        views, patches = make.views.stream.views, self._model.task.model.patches
        examples = ViewExamples(prepared.records(TRAIN), which, make.views, rows)
        with (
            closing(pipeline.batches(examples, rows, loader=self._config.loader)) as batches,
            on_mesh(self._mesh),
        ):
            count, what = len(which) * views, f"part {part} of {prepared.name}"
            tokens = np.concatenate(
                list(counted(self._encoded(batches), what, "views", count, rows))
            )
        kind = np.min_scalar_type(self._model.visual.tokenizer.config.codes - 1)
        cached.write(part, tokens[:count].reshape(len(which), views, patches).astype(kind))
        return count

    def _encoded(self, batches: Batches) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.asarray(self._encode(self._frozen, put_batch(batch, self._mesh)["image"]))
