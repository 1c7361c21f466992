"""VQ-KD's loss: predict a teacher from quantized features (BEiT v2)."""

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

USE_DECAY = 0.99
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
        return self.losses(*variables, batch, ctx.key)

    def losses(
        self,
        params: Tree,
        model_state: Tree,
        frozen: Tree,
        batch: dict[str, Array],
        key: Array | None,
    ) -> tuple[dict[str, Term], Tree]:
        """The same, without drop path and candidates if there is no key."""
        config = self.tokenizer.config
        blocks, draws = config.encoder_depth + config.decoder_depth, None
        if key is not None and config.drop_path:
            draws = uniform_per_row(key, batch[ROW], blocks, 2)
        outputs: Any = self.tokenizer.apply(
            {"params": params}, batch["image"], model_state["codebook"], draws
        )
        features, codes, predicted = outputs
        row = jnp.broadcast_to(batch["weight"][:, None], codes.shape)
        targets = self.teacher.targets(frozen, batch["image"])
        if self.teacher.centred:
            targets = l2_normalise(targets - model_state[TARGET_MEAN])
        cosine = jnp.sum(l2_normalise(predicted) * targets, axis=-1)
        assigned = jax.lax.stop_gradient(jnp.take(model_state["codebook"], codes, axis=0))
        distance = jnp.square(features - assigned).mean(axis=-1)
        terms = {
            "distillation": Term(loss=((1 - cosine) * row).sum(), weight=row.sum()),
            "commitment": Term(loss=(config.commitment * distance * row).sum(), weight=row.sum()),
        }
        flat = jax.lax.stop_gradient(features).reshape(-1, config.code_width)
        counts, sums = assigned_sums(flat, codes.ravel(), row.ravel(), config.codes)
        statistics = {"counts": counts, "sums": sums}
        if config.reseed_below and key is not None:
            statistics["candidates"] = self._candidates(features, batch[ROW], key)
        return terms, statistics

    def _candidates(
        self, features: Float[Array, "B N E"], rows: Int[Array, " B"], key: Array
    ) -> Float[Array, "C E"]:
        """Returns one candidate per code: a feature of a random patch of the whole batch.

        A candidate whose row is not among ``rows`` is zero; the sum over all rows completes it.
        """
        codes, patches = self.tokenizer.config.codes, features.shape[1]
        drawn, patch = (
            jax.random.randint(jax.random.fold_in(key, i), (codes,), 0, n)
            for i, n in enumerate((self.batch_size, patches))
        )
        here = drawn[:, None] == rows
        found = jax.lax.stop_gradient(features)[jnp.argmax(here, axis=1), patch]
        return jnp.where(here.any(axis=1)[:, None], found, 0)

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Moves the codebook; re-seeds dead codes where the config asks for it.

        Logs the codes in use (at least a tenth of the mean usage), the perplexity of the usage and
        the number of re-seeded codes.
        """
        config = self.tokenizer.config
        counts = statistics["counts"]
        codebook = ema_codebook(model_state["codebook"], counts, statistics["sums"], config.decay)
        share = counts / jnp.maximum(counts.sum(), 1.0)
        use = USE_DECAY * model_state["use"] + (1 - USE_DECAY) * share * config.codes
        dead = use < config.reseed_below
        if config.reseed_below:
            codebook = reseeded(codebook, dead, statistics["candidates"])
            use = jnp.where(dead, 1.0, use)
        spread = use / use.sum()
        logged = {
            "codes_used": (use >= 0.1).sum(),
            "dead_codes": (use < 0.01).sum(),
            "reseeded": dead.sum(),
            "perplexity": jnp.exp(
                -jnp.sum(jnp.where(spread > 0, spread * jnp.log(jnp.maximum(spread, 1e-12)), 0.0))
            ),
        }
        return {**model_state, "codebook": codebook, "use": use}, logged


def model_state_shapes(config: VisualTokenizerConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the objective's part of a state, by name."""
    shapes = {"codebook": (config.codes, config.code_width), "use": (config.codes,)}
    if config.teacher == "run":
        shapes[TARGET_MEAN] = (target_width(config),)
    return shapes
