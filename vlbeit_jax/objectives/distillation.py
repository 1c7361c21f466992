"""VQ-KD's loss: predict a teacher from quantized features (BEiT v2, section 2.2).

Gradients train encoder and decoder. The codebook has no gradient: after each step, ``update`` moves
every code towards the features that the step assigned to it. It needs sums over the whole batch, so
the loss returns them as statistics, and the train step adds them over devices and microbatches.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.models.teacher import Teacher, target_width
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    Objective,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.ops.quantize import assigned_sums, ema_codebook, l2_normalise, reseeded
from vlbeit_jax.shapes import Array, Float, Int

USE_DECAY = 0.99  # Of the moving average of how often each code is used.
# For the log, as shares of the mean usage: codes from ``USED`` on are in use, below ``DEAD`` dead.
USED, DEAD = 0.1, 0.01
TARGET_MEAN = "target_mean"  # In the state.


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """Cosine loss to the teacher plus commitment loss.

    Each code is a moving average of the features assigned to it. ``model_state`` holds the codebook
    and a moving average of each code's usage, whose mean over the codes is 1. For a centred teacher
    it also holds the mean target, which is subtracted from every target.
    """

    tokenizer: VisualTokenizer
    teacher: Teacher
    batch_size: int  # Rows of a whole batch: dead codes are replaced by features of any of them.

    def init_model_state(self) -> dict[str, Array]:
        """Returns zeros for codebook and mean target: they are found before the first step."""
        return {
            name: jnp.ones(shape) if name == "use" else jnp.zeros(shape)
            for name, shape in model_state_shapes(self.tokenizer.config).items()
        }

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Patches of the rows that count."""
        patches = batch["weight"].sum() * self.tokenizer.config.grid**2
        return {"distillation": patches, "commitment": patches}

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns both terms; statistics are the assignments, and candidates for dead codes."""
        params, model_state, frozen = variables
        return self.losses(params, model_state, frozen, batch, ctx.key)

    def losses(
        self,
        params: Tree,
        model_state: Tree,
        frozen: Tree,
        batch: dict[str, Array],
        key: Array | None,
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the same from its parts; without a key, for evaluation, nothing is drawn."""
        config = self.tokenizer.config
        blocks, draws = config.encoder_depth + config.decoder_depth, None
        if key is not None and config.drop_path:
            draws = uniform_per_row(key, batch[ROW], blocks, 2)
        outputs: Any = self.tokenizer.apply(
            {"params": params}, batch["image"], model_state["codebook"], draws
        )
        features, codes, predicted = outputs
        # Per patch. Rows that pad a batch have weight 0.
        weight = jnp.broadcast_to(batch["weight"][:, None], codes.shape)
        targets = self.teacher.targets(frozen, batch["image"])
        if self.teacher.centred:
            # The states of a trained network share a large component that says nothing about a
            # patch (docs/objective.md). With it, every cosine would be large, whatever the codes.
            targets = l2_normalise(targets - model_state[TARGET_MEAN])
        cosine = jnp.sum(l2_normalise(predicted) * targets, axis=-1)
        # The commitment term draws features to their code, and not the code to its features:
        # ``update`` does that.
        assigned = jax.lax.stop_gradient(jnp.take(model_state["codebook"], codes, axis=0))
        distance = jnp.square(features - assigned).mean(axis=-1)
        distillation = Term(loss=((1 - cosine) * weight).sum(), weight=weight.sum())
        commitment = Term(loss=(config.commitment * distance * weight).sum(), weight=weight.sum())
        flat = jax.lax.stop_gradient(features).reshape(-1, config.code_width)
        counts, sums = assigned_sums(flat, codes.ravel(), weight.ravel(), config.codes)
        statistics = {"counts": counts, "sums": sums}
        if config.reseed_below and key is not None:
            statistics["candidates"] = self._candidates(features, batch[ROW], key)
        return {"distillation": distillation, "commitment": commitment}, statistics

    def _candidates(
        self, features: Float[Array, "B N E"], rows: Int[Array, " B"], key: Array
    ) -> Float[Array, "C E"]:
        """Returns one candidate per code: a feature of a random patch of the whole batch.

        A candidate whose row is not among ``rows`` is zero.
        """
        codes, patches = self.tokenizer.config.codes, features.shape[1]
        # Every device and every microbatch draws the same rows of the whole batch. Exactly one of
        # them has a drawn row and gives its feature, so the sum of all is the candidate, however
        # the batch is split.
        row = jax.random.randint(jax.random.fold_in(key, 0), (codes,), 0, self.batch_size)
        patch = jax.random.randint(jax.random.fold_in(key, 1), (codes,), 0, patches)
        here = row[:, None] == rows
        candidates = jax.lax.stop_gradient(features)[jnp.argmax(here, axis=1), patch]
        return jnp.where(here.any(axis=1)[:, None], candidates, 0)

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Moves the codebook; re-seeds dead codes where the config asks for it.

        Logs the codes in use and the dead ones (``USED``, ``DEAD``), the perplexity of the usage,
        and the number of re-seeded codes.
        """
        config = self.tokenizer.config
        counts = statistics["counts"]
        codebook = ema_codebook(model_state["codebook"], counts, statistics["sums"], config.decay)
        # Usage is counted in units of the mean, so that a bound on it does not depend on the number
        # of codes or on the batch size.
        share = counts / jnp.maximum(counts.sum(), 1.0)
        use = USE_DECAY * model_state["use"] + (1 - USE_DECAY) * share * config.codes
        dead = use < config.reseed_below
        if config.reseed_below:
            codebook = reseeded(codebook, dead, statistics["candidates"])
            # A new code counts as one of mean usage. Otherwise it would be replaced again at once,
            # before it could attract features.
            use = jnp.where(dead, 1.0, use)
        spread = use / use.sum()
        logged = {
            "codes_used": (use >= USED).sum(),
            "dead_codes": (use < DEAD).sum(),
            "reseeded": dead.sum(),
        }
        # 0 log 0 is 0; the bound keeps the logarithm finite there.
        summands = jnp.where(spread > 0, spread * jnp.log(jnp.maximum(spread, 1e-12)), 0.0)
        logged["perplexity"] = jnp.exp(-jnp.sum(summands))
        return {**model_state, "codebook": codebook, "use": use}, logged


def model_state_shapes(config: VisualTokenizerConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the objective's part of a state, by name."""
    shapes = {"codebook": (config.codes, config.code_width), "use": (config.codes,)}
    if config.teacher == "run":
        shapes[TARGET_MEAN] = (target_width(config),)
    return shapes
