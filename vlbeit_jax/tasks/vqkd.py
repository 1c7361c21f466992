"""Training of the visual tokenizer: VQ-KD on images alone (spec section 3.1)."""

import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.config import Config, VisualTokenizerConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.data.sampling import EvaluationExamples, TrainingExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import VALIDATION
from vlbeit_jax.data.sources import open_sources, require_validation
from vlbeit_jax.data.splits import require_apart
from vlbeit_jax.models.teacher import teacher_width
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.ops.quantize import kmeans, l2_normalise
from vlbeit_jax.tasks.teachers import open_teacher
from vlbeit_jax.training.saved_run import tree_fingerprint
from vlbeit_jax.training.sharding import on_mesh, put_batch, put_replicated, replicated
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Stream

Tree = Any


class CodebookCollapse(UserWarning):
    """Few codes are in use: the visual tokens say little, and pretraining on them will teach little."""


def make_tokenizer(config: VisualTokenizerConfig) -> VisualTokenizer:
    """The network with an output as wide as its teacher."""
    return VisualTokenizer(config, teacher_width(config.teacher, config.patch_size))


@functools.cache
def _scorer(objective: Distillation, mesh: Mesh) -> Callable[..., Any]:
    def score(params: Tree, model_state: Tree, frozen: Tree, batch: Any) -> Any:
        terms, statistics = objective.losses(params, model_state, frozen, batch, None)
        return terms, statistics["counts"]

    return jax.jit(score, out_shardings=replicated(mesh))


class VQKD:
    """The task; see ``tasks.base.Task``."""

    def __init__(self, config: Config):
        """Opens the image stream's data."""
        self.config, visual = config, config.visual_tokenizer
        self.tokenizer = make_tokenizer(visual)
        teacher, self.frozen = open_teacher(visual)
        self.objective = Distillation(self.tokenizer, teacher, config.data.image.batch_size)
        self.objectives: Mapping[str, Objective] = {Stream.IMAGE: self.objective}
        self.chance: Mapping[str, float] = {}
        self.sets = open_sources(Stream.IMAGE, config.data.image)
        require_apart(self.sets)
        if config.run.evaluate_every:
            require_validation(self.sets[:1])
        self.trained_on: Sequence[str] = sorted(
            {name for found in self.sets for name in found.contains}
        )
        self.fingerprints: Mapping[str, Any] = {
            "data.image": [found.fingerprint for found in self.sets],
            "teacher": tree_fingerprint(self.frozen) if self.frozen else visual.teacher,
        }

    def _make(self, augment: bool) -> MaskedExample:
        visual = self.config.visual_tokenizer
        return MaskedExample(
            dataclasses.replace(self.config.data.image, num_masked_patches=0),
            visual.image_size,
            visual.grid,
            None,
            augment,
        )

    def init_params(self, key: jax.Array) -> Tree:
        """Fresh encoder and decoder."""
        visual = self.config.visual_tokenizer
        image = jnp.zeros((1, visual.image_size, visual.image_size, 3), jnp.uint8)
        return self.tokenizer.init(key, image, jnp.zeros((visual.codes, visual.code_width)))[
            "params"
        ]

    def examples(self, stream: str) -> TrainingExamples:
        """The stream's endless examples."""
        config = self.config
        return TrainingExamples(
            stream,
            self.sets,
            self._make(True),
            seed=config.run.seed,
            weights=config.data.image.weights,
        )

    def training_batches(self, stream: str, start: int, shard: HostShard) -> Batches:
        """Images; see ``data.pipeline``."""
        config = self.config
        return pipeline.batches(
            self.examples(stream), config.data.image.batch_size, start, shard, config.data
        )

    def save_assets(self, workdir: pathlib.Path) -> None:
        """Nothing: a visual tokenizer depends on its images alone."""

    def before_training(self, state: TrainState, mesh: Mesh, shard: HostShard) -> TrainState:
        """Sets the codebook by k-means on the features of the first batches, gathered over all devices."""
        visual = self.config.visual_tokenizer
        everywhere = replicated(mesh)

        def features(params: Tree, image: jax.Array) -> jax.Array:
            found: Any = self.tokenizer.apply({"params": params}, image, method="features")
            return found.reshape(-1, visual.code_width)

        compiled = jax.jit(features, out_shardings=everywhere)
        with closing(self.training_batches(Stream.IMAGE, 0, shard)) as batches, on_mesh(mesh):
            seen = [
                compiled(state.params, put_batch(next(batches), mesh)["image"])
                for _ in range(visual.kmeans_batches)
            ]
            cluster = jax.jit(
                lambda z, key: kmeans(l2_normalise(z), visual.codes, visual.kmeans_iterations, key),
                out_shardings=everywhere,
            )
            codebook = cluster(jnp.concatenate(seen), jax.random.key(self.config.run.seed))
        model_state = state.model_state | {
            Stream.IMAGE: state.model_state[Stream.IMAGE] | {"codebook": codebook}
        }
        return dataclasses.replace(state, model_state=model_state)

    def evaluate(self, state: TrainState, mesh: Mesh, shard: HostShard) -> dict[str, float]:
        """Held-back losses, and how many codes the held-back images use; warns of a collapse."""
        config = self.config
        compiled = _scorer(self.objective, mesh)
        totals, frozen = None, put_replicated(self.frozen, mesh)
        batch_size = config.data.image.batch_size
        examples = EvaluationExamples(
            self.sets[0].records(VALIDATION),
            self._make(False),
            batch_size,
            seed=config.run.seed,
            max_batches=config.run.evaluate_batches,
        )
        held_back = pipeline.batches(examples, batch_size, shard=shard, loader=config.data)
        with closing(held_back) as batches, on_mesh(mesh):
            for batch in batches:
                new = compiled(
                    state.params, state.model_state[Stream.IMAGE], frozen, put_batch(batch, mesh)
                )
                totals = new if totals is None else jax.tree.map(jnp.add, totals, new)
        terms, counts = jax.device_get(totals)
        figures = {
            f"{name}/loss": float(term.loss / max(term.weight, 1)) for name, term in terms.items()
        }
        spread = counts[counts > 0] / counts.sum()
        figures["codes_used"] = int((counts > 0).sum())
        figures["perplexity"] = float(np.exp(-(spread * np.log(spread)).sum()))
        figures["most_frequent_code"] = float(spread.max())
        self._warn_of_collapse(np.asarray(state.model_state[Stream.IMAGE]["use"]))
        return figures

    def _warn_of_collapse(self, use: np.ndarray) -> None:
        visual = self.config.visual_tokenizer
        used = int((use >= 0.1).sum())
        if used < visual.collapse_below * visual.codes:
            warnings.warn(
                f"only {used} of {visual.codes} codes are in use (below collapse_below={visual.collapse_below:g}); "
                "try a lower learning rate, more k-means batches, or --config.visual_tokenizer.reseed_below=0.01",
                CodebookCollapse,
                stacklevel=2,
            )
