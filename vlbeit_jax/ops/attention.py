"""Bidirectional multi-head attention with a key mask and an optional additive bias.

Three implementations compute the same function. ``einsum`` is matrix products and a softmax that
the compiler arranges; it runs everywhere. ``fused`` is our TPU kernel: ``fused_attention`` for up
to 512 tokens, ``long_attention`` for more, and where there is a bias or a mask. ``cudnn`` is
NVIDIA's kernel (``cudnn_attention``). All kernels keep the attention weights on the chip.

Queries, keys and values are in one array, so that one matrix product projects to all three. Heads
are in groups, each with as many heads as fill the lanes of a TPU's vector register. A group's
queries come first, then its keys, then its values. If the array is cut between groups, each chip
has queries, keys and values of its own heads.
"""

import jax
import jax.numpy as jnp

from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.cudnn_attention import cudnn_attention, what_is_missing
from vlbeit_jax.ops.device import LANES, chips_sharing_heads, on_nvidia, on_tpu
from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.ops.hidden import HIDDEN
from vlbeit_jax.ops.kernel_memory import MIB, vmem_bytes, vmem_here
from vlbeit_jax.shapes import Array, Bool, Float

BFLOAT16 = jnp.dtype(jnp.bfloat16)
LONGEST_SHORT = 512  # Tokens: this kernel holds the weights of one head, L x L, on the chip.


def group_width(width: int, heads: int) -> int:
    """Width of a group: heads whose queries are side by side, followed by their keys and values."""
    return LANES if _fill_lanes(width, heads) else width // heads


def group_by_lanes(
    query: Float[Array, "*B D"], key: Float[Array, "*B D"], value: Float[Array, "*B D"], heads: int
) -> Float[Array, "*B Q"]:
    """Joins queries, keys and values, or their biases, in the order that attention takes."""
    parts = [
        x.reshape(*x.shape[:-1], -1, group_width(x.shape[-1], heads)) for x in (query, key, value)
    ]
    return jnp.stack(parts, axis=-2).reshape(*query.shape[:-1], -1)


def attention(
    projected: Float[Array, "B L Q"],
    shift: Float[Array, " Q"],
    heads: int,
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None = None,
    mask: Bool[Array, "L L"] | None = None,
    implementation: str = "einsum",
) -> Float[Array, "B L D"]:
    """Returns scaled dot-product attention; logits and softmax in float32 whatever the input type.

    Args:
      projected: unscaled queries, keys and values, as ``group_by_lanes`` orders them.
      shift: biases of the projection, added to ``projected``. They are an argument because the
        kernel computes their gradients along with those of ``projected``.
      heads: H, into which D is cut.
      valid: True where a key may be attended to; None if all may. Each row needs a valid key, and
        valid keys come first: "cudnn" takes their number only.
      bias: added to the scaled logits, query by key; "cudnn" takes none.
      mask: True where a query may see a key, the same for all rows; "cudnn" takes none.
      implementation: "einsum", "fused", "cudnn" or "auto", which is "fused" on a TPU and "cudnn" on
        an NVIDIA GPU if that is possible, and otherwise "einsum".

    Raises:
      UsageError: the implementation is not possible here; the message says what is missing.
    """
    length, width = projected.shape[1], projected.shape[2] // 3
    implementation = choose_implementation(
        implementation,
        length,
        width,
        heads,
        projected.dtype,
        biased=bias is not None,
        masked=mask is not None,
    )
    if implementation == "fused":
        # Pallas takes a quarter of a second to import, which is a tenth of a first answer.
        if length <= LONGEST_SHORT and bias is None and mask is None:
            from vlbeit_jax.ops.fused_attention import fused_attention

            return fused_attention(projected, shift, valid, heads)
        from vlbeit_jax.ops.long_attention import long_attention

        return long_attention(projected, shift, valid, bias, mask, heads)
    query, key, value = ungroup(projected + shift.astype(projected.dtype), heads)
    return attention_by_parts(query, key, value, heads, valid, bias, mask, implementation)


def attention_by_parts(
    query: Float[Array, "B L D"],
    key: Float[Array, "B keys D"],
    value: Float[Array, "B keys D"],
    heads: int,
    valid: Bool[Array, "B keys"] | None,
    bias: Float[Array, "H L keys"] | None,
    mask: Bool[Array, "L keys"] | None,
    implementation: str,
) -> Float[Array, "B L D"]:
    """``attention`` of three arrays that include their biases, by "einsum" or "cudnn".

    cuDNN reads three arrays. If three products make them, nothing is moved in between. With
    "einsum" there may be more keys than queries.
    """
    batch, length, width = query.shape
    query, key, value = (
        x.reshape(batch, x.shape[1], heads, width // heads) for x in (query, key, value)
    )
    if implementation == "cudnn":
        assert bias is None and mask is None, "``choose_implementation`` refuses them"
        mixed = cudnn_attention(query, key, value, valid)
    else:
        mixed = _einsum_attention(query, key, value, valid, bias, mask)
    return mixed.reshape(batch, length, width)


def ungroup(grouped: Float[Array, "*B Q"], heads: int) -> list[Float[Array, "*B D"]]:
    """Takes queries, keys and values, or the columns of their projections, apart again."""
    *rows, columns = grouped.shape
    groups = grouped.reshape(*rows, -1, 3, group_width(columns // 3, heads))
    return [groups[..., part, :].reshape(*rows, columns // 3) for part in range(3)]


def why_not_fused(
    length: int,
    width: int,
    heads: int,
    chips: int,
    dtype: jnp.dtype = BFLOAT16,
    *,
    biased: bool = False,
    masked: bool = False,
) -> str:
    """What our TPU kernels need that these sizes do not give; empty if nothing.

    Args:
      length: tokens L.
      width: D.
      heads: H.
      chips: that share the heads.
      dtype: of the products.
      biased: whether a bias is added to the logits.
      masked: whether a mask of queries by keys is given.
    """
    # On each of the chips that share the heads, whole heads must fill the lanes of a register.
    if not _fill_lanes(width, heads) or width % (LANES * chips):
        return (
            f"need heads that fill {LANES} lanes on each of {chips} chip(s), for example an "
            "even number of heads 64 wide"
        )
    if length <= LONGEST_SHORT and not biased and not masked:
        return ""
    needed = vmem_bytes(length, dtype, biased * LANES * heads // width, masked)
    if needed > vmem_here():
        return (
            f"would need {needed / MIB:.0f} MiB on the chip, where {vmem_here() / MIB:.0f} "
            "can be used"
        )
    return ""


def choose_implementation(
    name: str,
    length: int,
    width: int,
    heads: int,
    dtype: jnp.dtype,
    *,
    biased: bool = False,
    masked: bool = False,
) -> str:
    """Returns which of "einsum", "fused" and "cudnn" computes attention here.

    Args:
      name: one of them, or "auto".
      length: tokens L.
      width: D.
      heads: H.
      dtype: of the products.
      biased: whether a bias is added to the logits, which "cudnn" does not do.
      masked: whether a mask of queries by keys is given, which "cudnn" does not apply.

    Raises:
      UsageError: the one that was named is not possible here.
    """
    if name == "fused" or (name == "auto" and on_tpu()):
        chips = chips_sharing_heads()
        missing = why_not_fused(length, width, heads, chips, dtype, biased=biased, masked=masked)
        if not missing:
            return "fused"
        if name == "fused":
            raise UsageError(
                f"attention=fused cannot compute {length} tokens of width {width} in {heads} "
                f"heads: our TPU kernels {missing}; use attention=auto"
            )
    if name == "cudnn" or (name == "auto" and on_nvidia()):
        missing = why_not_cudnn(width, heads, dtype, biased=biased, masked=masked)
        if not missing:
            return "cudnn"
        if name == "cudnn":
            raise UsageError(
                f"attention=cudnn needs {missing}; use attention=auto, which takes an "
                "implementation that works here"
            )
    return "einsum"


def why_not_cudnn(width: int, heads: int, dtype: jnp.dtype, *, biased: bool, masked: bool) -> str:
    """What NVIDIA's kernel needs and does not have here; empty if nothing."""
    if biased:
        return "absolute positions (this model has a relative bias)"
    if masked:
        return "attention without a mask of queries by keys"
    return what_is_missing(dtype, width // heads)


def _fill_lanes(width: int, heads: int) -> bool:
    return width % LANES == 0 and LANES % (width // heads) == 0


def _einsum_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B keys H K"],
    value: Float[Array, "B keys H K"],
    valid: Bool[Array, "B keys"] | None,
    bias: Float[Array, "H L keys"] | None,
    mask: Bool[Array, "L keys"] | None,
) -> Float[Array, "B L H K"]:
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    # The width of a head scales the queries and not the logits, of which there are more.
    logits = einsum_to_float32("bhqk,bhsk->bhqs", query * query.shape[-1] ** -0.5, key)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, HIDDEN)
    if valid is not None:
        logits = jnp.where(valid[:, None, None, :], logits, HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value).transpose(0, 2, 1, 3)
