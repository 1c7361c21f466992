"""VQ-KD with its teacher, and its training sets."""

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

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.images import ImageExample, Views
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import VALIDATION
from vlbeit_jax.models.teacher import target_width
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.objectives.distillation import TARGET_MEAN, Distillation
from vlbeit_jax.ops.quantize import kmeans, l2_normalise
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.teachers import restore_teacher
from vlbeit_jax.training.mesh import on_mesh, put_batch, put_replicated, replicated
from vlbeit_jax.training.saved_run import tree_fingerprint
from vlbeit_jax.training.state import TrainState

IMAGE = "image"  # The one stream.


class CodebookCollapse(UserWarning):
    """Few codes are in use, so visual tokens carry little information."""


def make_tokenizer(config: VisualTokenizerConfig) -> VisualTokenizer:
    """Returns the network; its output is as wide as its teacher's."""
    return VisualTokenizer(config, target_width(config))


class OpenVQKD:
    """VQ-KD with its teacher; see ``tasks.base.OpenTask``.

    Attributes:
      task: its description, a resolved ``tasks.vqkd.VQKD``.
      frozen: the teacher's parameters.
      objective: with the teacher.
      chance: empty, because VQ-KD predicts no classes.
      headlines: the use of the codebook, which collapses if training goes wrong.
    """

    headlines = (Headline("codes_used", "codes in use"), Headline("perplexity", "perplexity"))

    def __init__(self, task: Any):
        """Opens the teacher."""
        self.task = task
        assert task.opened_teacher is not None, "resolved"
        self.frozen = restore_teacher(task.model, task.opened_teacher)
        self.objective = task.streams()[IMAGE].objective
        self.chance: Mapping[str, float] = {}

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """The fingerprint of the teacher: of its weights, or its name."""
        teacher = self.task.model.teacher
        return {"teacher": tree_fingerprint(self.frozen) if self.frozen else teacher}

    def save_assets(self, folder: pathlib.Path) -> None:
        """Does nothing: a trained visual tokenizer needs no other files."""

    def training_data(self, run: RunConfig) -> "VQKDData":
        """Opens the sets of images.

        Raises:
          UsageError: one is missing or of the wrong kind.
        """
        image = self.task.image
        sets = open_sets(image, image.kinds, run)
        return VQKDData(IMAGE, image, sets, _example(self.task, augment=True), run.seed)

    def evaluators(self, data: "VQKDData", place: base.Place) -> Sequence[base.Evaluator]:
        """Returns held-out losses, and how many codes the held-out images use."""
        run = functools.partial(self._evaluate, data, place)
        return [base.Evaluator("", place.run.evaluate_every, run)]

    def prepare_state(self, state: TrainState, data: "VQKDData", place: base.Place) -> TrainState:
        """Returns the state with what the first batches give.

        That is a codebook from k-means on their features, and the mean target of a centred teacher.
        The features of all devices are gathered, so every host finds the same codes.
        """
        visual, everywhere = self.task.model, replicated(place.mesh)
        network, teacher = make_tokenizer(visual), self.objective.teacher

        def features(params: Tree, image: jax.Array) -> jax.Array:
            vectors: Any = network.apply({"params": params}, image, method="features")
            return vectors.reshape(-1, visual.code_width)

        def cluster(features: jax.Array, key: jax.Array) -> jax.Array:
            return kmeans(l2_normalise(features), visual.codes, visual.kmeans_iterations, key)

        def mean_target(frozen: Tree, image: jax.Array) -> jax.Array:
            return teacher.targets(frozen, image).mean(axis=(0, 1))

        compiled = jax.jit(features, out_shardings=everywhere)
        compiled_mean = jax.jit(mean_target, out_shardings=everywhere)
        feed = pipeline.batches(
            data.examples(IMAGE),
            self.task.image.batch_size,
            shard=place.shard,
            loader=place.loader,
            on_replaced=lambda replaced: None,  # The first steps read these batches and count.
        )
        frozen, seen, means = put_replicated(self.frozen, place.mesh), [], []
        with closing(feed) as batches, on_mesh(place.mesh):
            for _ in range(visual.kmeans_batches):
                image = put_batch(next(batches), place.mesh)["image"]
                seen.append(compiled(state.params, image))
                if teacher.centred:
                    means.append(compiled_mean(frozen, image))
            key = jax.random.key(place.run.seed)
            codebook = jax.jit(cluster, out_shardings=everywhere)(jnp.concatenate(seen), key)
        at_start = {"codebook": codebook}
        if teacher.centred:
            at_start[TARGET_MEAN] = jnp.stack(means).mean(axis=0)
        model_state = state.model_state | {IMAGE: state.model_state[IMAGE] | at_start}
        return dataclasses.replace(state, model_state=model_state)

    def _evaluate(
        self, data: "VQKDData", place: base.Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        mesh, totals = place.mesh, None
        compiled = _scorer(self.objective, mesh)
        batch_size = self.task.image.batch_size
        examples = EvaluationExamples(
            data.sets[0].records(VALIDATION),
            _example(self.task, augment=False),
            batch_size,
            seed=place.run.seed,
            max_batches=place.run.evaluate_batches,
        )
        feed = pipeline.batches(examples, batch_size, shard=place.shard, loader=place.loader)
        with closing(feed) as batches, on_mesh(mesh):
            for batch in counted(batches, "scoring images", "examples", len(examples), batch_size):
                model_state, rows = state.model_state[IMAGE], put_batch(batch, mesh)
                new = compiled(state.params, model_state, frozen, rows)
                totals = new if totals is None else jax.tree.map(jnp.add, totals, new)
        terms, counts = jax.device_get(totals)
        figures = {
            f"{name}/loss": float(term.loss / max(term.weight, 1)) for name, term in terms.items()
        }
        share = counts[counts > 0] / counts.sum()
        figures["codes_used"] = int((counts > 0).sum())
        figures["perplexity"] = float(np.exp(-(share * np.log(share)).sum()))
        figures["most_frequent_code"] = float(share.max())
        self._warn_of_collapse(np.asarray(state.model_state[IMAGE]["use"]))
        return figures

    def _warn_of_collapse(self, use: np.ndarray) -> None:
        visual = self.task.model
        used = int((use >= 0.1).sum())
        if used < visual.collapse_below * visual.codes:
            warnings.warn(
                f"only {used} of {visual.codes} codes are in use (below "
                f"collapse_below={visual.collapse_below:g}); try a lower learning rate, more "
                "k-means batches, or --config.task.model.reseed_below=0.01",
                CodebookCollapse,
                stacklevel=2,
            )


class VQKDData(OneStreamData):
    """The sets of images."""

    def save_seen(self, folder: pathlib.Path) -> None:
        """Does nothing: a visual tokenizer is not evaluated on sets of others."""


def _example(task: Any, augment: bool) -> ImageExample:
    return ImageExample(Views(task.image, task.model.image_size, augment))


@functools.cache
def _scorer(objective: Distillation, mesh: Mesh) -> Callable[..., Any]:
    def score(params: Tree, model_state: Tree, frozen: Tree, batch: Any) -> Any:
        terms, statistics = objective.losses(params, model_state, frozen, batch, None)
        return terms, statistics["counts"]

    return jax.jit(score, out_shardings=replicated(mesh))
