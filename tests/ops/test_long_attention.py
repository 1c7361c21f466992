"""The kernel for long rows (emulated here) equals a float64 statement of attention.

Its blocks of queries are shortened, so that few tokens make several of them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops import attention as ops
from vlbeit_jax.ops import kernel_memory
from vlbeit_jax.ops.attention import choose_implementation, group_by_lanes, why_not_fused

BATCH, WIDTH, HEADS = 4, 256, 4
QUERIES = 16
OPTIONS = ("valid", "mask", "bias")
# Without a loop; one block and a short one; three blocks and a long one, whose end is in no tile.
LENGTHS = (21, 71)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(kernel_memory, "QUERIES", QUERIES)
    monkeypatch.setattr(ops, "LONGEST_SHORT", 0)


def arrays(length, options=OPTIONS, seed=0):
    """Queries, keys, values and their biases; the options; the cotangent. All in float64."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(3, BATCH, length, WIDTH))
    shifts = rng.normal(size=(3, WIDTH))
    valid = np.arange(length) < rng.integers(1, length + 1, size=(BATCH, 1))
    mask = (rng.random((length, length)) > 0.3) | np.eye(length, dtype=bool)
    mask[:, 0] = True  # So that every query has a key that is not padding.
    bias = rng.normal(size=(HEADS, length, length))
    given = {"valid": valid, "mask": mask, "bias": bias}
    given = {name: given[name] if name in options else None for name in OPTIONS}
    return parts, shifts, given, rng.normal(size=(BATCH, length, WIDTH))


def stated(parts, shifts, given, change):
    """Attention and its gradients in float64, written out with NumPy."""

    def by_head(x):
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    def joined(x):
        return x.transpose(0, 2, 1, 3).reshape(BATCH, -1, WIDTH)

    q, k, v = (by_head(x + shift) for x, shift in zip(parts, shifts, strict=True))
    scale = q.shape[-1] ** -0.5
    logits = scale * q @ k.swapaxes(2, 3)
    if given["bias"] is not None:
        logits = logits + given["bias"]
    if given["mask"] is not None:
        logits = np.where(given["mask"], logits, -np.inf)
    if given["valid"] is not None:
        logits = np.where(given["valid"][:, None, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    d = by_head(change)
    dweights = d @ v.swapaxes(2, 3)
    dlogits = weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True))
    gradients = [
        joined(x)
        for x in (
            scale * dlogits @ k,
            scale * dlogits.swapaxes(2, 3) @ q,
            weights.swapaxes(2, 3) @ d,
        )
    ]
    found = {"out": joined(weights @ v)}
    found |= dict(zip(("query", "key", "value"), gradients, strict=True))
    # A bias of keys changes nothing: its gradient is 0, and an error has nothing to be divided by.
    found |= {f"{name}_shift": found[name].sum(axis=(0, 1)) for name in ("query", "value")}
    return found | ({"bias": dlogits.sum(axis=0)} if given["bias"] is not None else {})


def computed(parts, shifts, given, change, dtype=jnp.float32, how="fused"):
    types = {"valid": bool, "mask": bool, "bias": jnp.float32}
    given = {name: None if x is None else jnp.asarray(x, types[name]) for name, x in given.items()}

    def mixed(parts, shifts, bias):
        (query, key, value), (of_query, of_key, of_value) = parts, shifts
        return ops.attention(
            group_by_lanes(query, key, value, HEADS),
            group_by_lanes(of_query, of_key, of_value, HEADS),
            HEADS,
            given["valid"],
            bias,
            given["mask"],
            how,
        )

    inputs = [jnp.asarray(x, dtype) for x in parts], [jnp.asarray(x, jnp.float32) for x in shifts]
    out, backward = jax.vjp(mixed, *inputs, given["bias"])
    of_parts, of_shifts, of_bias = backward(jnp.asarray(change, dtype))
    found = {"out": out} | dict(zip(("query", "key", "value"), of_parts, strict=True))
    found |= {"query_shift": of_shifts[0], "value_shift": of_shifts[2]}
    return found | ({} if of_bias is None else {"bias": of_bias})


def error(found, wanted):
    assert found.keys() == wanted.keys()
    return max(
        float(np.abs(np.asarray(found[name], np.float64) - wanted[name]).max())
        / float(np.abs(wanted[name]).max())
        for name in wanted
    )


@pytest.mark.parametrize(
    ("length", "options"),
    [
        *((27, each) for size in range(3) for each in itertools.combinations(OPTIONS, size)),
        *((length, OPTIONS) for length in LENGTHS),
    ],
    ids=str,
)
def test_the_kernel_computes_what_float64_does(length, options):
    given = arrays(length, options)
    assert error(computed(*given), stated(*given)) < 2e-6


def test_in_bfloat16_it_rounds_no_more_than_products_and_softmax_do():
    given = arrays(71)
    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in (given[0], given[3])]
    given = (rounded[0], np.zeros((3, WIDTH)), given[2], rounded[1])
    wanted = stated(*given)
    found, by_einsum = (
        error(computed(*given, dtype=jnp.bfloat16, how=how), wanted) for how in ("fused", "einsum")
    )
    assert found < 1.5e-2 and found < 1.5 * by_einsum


@pytest.mark.parametrize("changed", OPTIONS)
def test_another_option_is_noticed(changed):
    parts, shifts, given, change = arrays(27)
    other = given | {changed: arrays(27, seed=1)[2][changed]}
    assert error(computed(parts, shifts, other, change), stated(parts, shifts, given, change)) > 0.1


def test_blocks_of_queries_cover_a_row_once():
    for length in range(1, 200):
        looped, rest = kernel_memory.block_lengths(length)
        assert looped * QUERIES + rest == length
        assert looped == 0 or QUERIES // 2 <= rest < QUERIES * 3 // 2
        assert rest < QUERIES * 3 // 2


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 1, 2), (1, 2, 2)], ids=str)
def test_rows_and_heads_may_lie_on_several_chips(shape):
    given = arrays(27)
    mesh = tiny.mesh_of(*shape)
    rows = PartitionSpec(("data", "fsdp"), None, "tensor")
    put = [
        jax.device_put(jnp.asarray(x, jnp.float32), NamedSharding(mesh, spec))
        for x, spec in zip((*given[0], given[3]), [rows] * 4, strict=True)
    ]
    with jax.set_mesh(mesh):
        found = jax.jit(lambda *x: computed(x[:3], given[1], given[2], x[3]))(*put)
    assert error(found, stated(*given)) < 2e-6


def test_what_does_not_fit_the_chip_is_refused_with_its_size(monkeypatch):
    sizes = (1601, 768, 12, 1)
    monkeypatch.undo()  # Blocks as long as they are.
    assert not why_not_fused(*sizes) and not why_not_fused(*sizes, biased=True, masked=True)
    assert "where 112 can be used" in why_not_fused(4097, 768, 12, 1, biased=True)
    monkeypatch.setitem(kernel_memory.VMEM, "TPU v5e", 16)
    assert "where 14 can be used" in why_not_fused(*sizes, masked=True)
    with pytest.raises(
        UsageError, match=r"1601 tokens of width 768 in 12 heads: our TPU kernels would"
    ):
        choose_implementation("fused", 1601, 768, 12, ops.BFLOAT16, biased=True)
