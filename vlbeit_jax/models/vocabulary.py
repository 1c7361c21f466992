"""Word table and word head: the only modules that see a part of a parameter.

Both declare their parameters with ``vocab_parallel``. Inside the per-chip part of a step
(``training.per_chip``) such a parameter is not gathered: the module reads the rows or columns that
this device holds, and ``ops.vocabulary`` does the communication. Everywhere else the module sees
the whole parameter. The declared shape is always the whole one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import beit_init, matmul, zeros
from vlbeit_jax.models.params import declare
from vlbeit_jax.ops.losses import Prediction
from vlbeit_jax.ops.vocabulary import (
    gather_rows,
    local_words,
    look_up,
    vocab_parallel_cross_entropy,
)
from vlbeit_jax.shapes import Array, Float, Int

VOCABULARY_MULTIPLE = 128  # TPU tiles are 128 wide.


def padded_vocabulary(size: int) -> int:
    """Returns rows of table and head: the next multiple of 128. The extra words are never used."""
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def zero_from(
    init: nn.initializers.Initializer, start: int, axis: int
) -> nn.initializers.Initializer:
    """Returns ``init`` with zeros from index ``start`` of an axis on.

    No gradient reaches the words that pad a vocabulary, so they stay zero.
    """

    def padded(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        others = [other for other in range(len(shape)) if other != axis]
        real = jnp.expand_dims(jnp.arange(shape[axis]) < start, others)
        return jnp.where(real, init(key, shape, dtype), 0)

    return padded


def local_part(module: nn.Module, name: str, init: Callable[..., Any], shape: Any) -> Array:
    """Returns a parameter as this device holds it: whole, or a part of the vocabulary.

    ``module.param`` would refuse a part, because its shape is not the declared one.
    """
    if module.is_initializing() or not module.has_variable("params", name):
        # Creates the parameter, or fails as every module does if it is missing.
        return module.param(name, init, shape)
    return nn.unbox(module.get_variable("params", name))


class WordTable(nn.Module):
    """Embeddings of word pieces.

    Attributes:
      width: of an embedding.
      vocabulary: word pieces, without those that pad it.
      dtype: in which embeddings, and gradients of the table, are communicated.
    """

    width: int
    vocabulary: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Returns the embedding of each word piece, in float32."""
        rows = padded_vocabulary(self.vocabulary)
        init = declare(
            zero_from(beit_init(), self.vocabulary, axis=0),
            "word",
            "word_width",
            decay=True,
            # No ``dtype``: the table stays in float32, and only the rows that are looked up are
            # cast. Its gradient, as large as the table, is summed over devices in this type.
            grad_dtype=self.dtype,
            vocab_parallel=True,
        )
        words = local_part(self, "words", init, (rows, self.width))
        # The parameter's own shape tells how many devices share the vocabulary here, so that the
        # module asks no mesh.
        parts = rows // words.shape[0]
        return look_up(words, ids, self.dtype, parts).astype(jnp.float32)


class WordHead(nn.Module):
    """Predicts word pieces. Logits of a sharded vocabulary never leave it.

    Attributes:
      vocabulary: word pieces, without those that pad it.
      dtype: of the operands of the product; logits are float32.
    """

    vocabulary: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, states: Float[Array, "B M D"], targets: Int[Array, "B M"], smoothing: float = 0.0
    ) -> Prediction:
        """Returns loss and correctness of each target; for ``smoothing`` see ``cross_entropy``."""
        logits, parts = self._logits(states)
        return vocab_parallel_cross_entropy(logits, targets, parts, smoothing)

    @nn.compact
    def logits(self, states: Float[Array, "B M D"]) -> Float[Array, "B M V"]:
        """Returns logits (float32) of the whole vocabulary; padding words have -inf.

        For inference: inside the per-chip part of a step no device has them all.
        """
        logits, parts = self._logits(states)
        assert parts == 1, "the vocabulary is sharded here; call the head with targets"
        return logits

    def top(self, states: Float[Array, "B M D"], k: int) -> Int[Array, "B M k"]:
        """Returns the k most likely word pieces, the most likely first; for inference."""
        return jax.lax.top_k(self.logits(states), k)[1]

    def _logits(self, states: Float[Array, "B M D"]) -> tuple[Float[Array, "R M V"], int]:
        """Returns logits of the words that this device holds, and how many devices hold words.

        They are of this device's rows; or of the rows R of all devices, if the vocabulary is split.
        """
        columns = padded_vocabulary(self.vocabulary)
        init = declare(
            zero_from(beit_init(), self.vocabulary, axis=1),
            None,
            "piece",
            decay=True,
            dtype=self.dtype,
            vocab_parallel=True,
        )
        kernel = local_part(self, "kernel", init, (states.shape[-1], columns))
        bias_init = declare(zeros, "piece", vocab_parallel=True)
        bias = local_part(self, "bias", bias_init, (columns,))
        parts = columns // kernel.shape[1]
        # This device predicts its own words for the rows of all devices that share the vocabulary.
        # Only masked words have a state here, so that this is less to send than the kernel.
        states = gather_rows(states, parts).astype(self.dtype)
        # Exact, in float32: rounded to bfloat16, the logits of many words would be equal.
        logits = matmul(states, kernel.astype(self.dtype), exact=True) + bias
        # A padding word is never the most likely one, and adds nothing to the normaliser.
        real = local_words(logits.shape[-1], parts) < self.vocabulary
        return jnp.where(real, logits, -jnp.inf), parts
