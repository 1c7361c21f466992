"""The fused kernel (emulated here) equals XLA's attention, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.attention import attention, group_by_lanes, why_not_fused

BATCH, LENGTH, WIDTH, HEADS = 4, 37, 256, 4


def arrays(dtype=jnp.float32):
    """Queries, keys, values, biases of queries and values; valid keys; the output's cotangent."""
    rng = np.random.default_rng(0)
    *inputs, change = (
        jnp.asarray(rng.normal(size=(BATCH, LENGTH, WIDTH)), dtype) for _ in range(4)
    )
    inputs += [jnp.asarray(rng.normal(size=WIDTH), jnp.float32) for _ in range(2)]
    valid = jnp.asarray(rng.random((BATCH, LENGTH)) > 0.3).at[:, 0].set(True)
    return inputs, valid, change


def values_and_gradients(how, inputs, valid, change):
    def mixed(query, key, value, of_query, of_value):
        shift = group_by_lanes(
            of_query, jnp.zeros_like(of_query), of_value, HEADS
        )  # A bias of keys changes nothing.
        return attention(
            group_by_lanes(query, key, value, HEADS), shift, HEADS, valid, None, None, how
        )

    found, backward = jax.vjp(mixed, *inputs)
    return found, *backward(change)


def test_queries_keys_and_values_of_heads_that_fill_the_lanes_stand_together():
    names = [np.array([f"{name}{lane}" for lane in range(256)]) for name in "qkv"]
    order = [
        f"{name}{lane}"
        for start in (0, 128)
        for name in "qkv"
        for lane in range(start, start + 128)
    ]
    numbers = [jnp.arange(256.0) + 256 * part for part in range(3)]
    assert np.concatenate(names)[group_by_lanes(*numbers, 4).astype(int)].tolist() == order
    by_head = [
        f"{name}{lane}"
        for start in range(0, 96, 32)
        for name in "qkv"
        for lane in range(start, start + 32)
    ]
    assert (
        np.concatenate(names)[group_by_lanes(*(x[:96] for x in numbers), 3).astype(int)].tolist()
        == by_head
    )


def error(found, wanted):
    return max(
        float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_the_kernel_computes_what_products_and_softmax_do(dtype, tolerance, masked):
    inputs, valid, change = arrays(dtype)
    valid = valid if masked else None
    exact = [x.astype(jnp.float32) for x in (*inputs, change)]
    assert (
        error(
            values_and_gradients("fused", inputs, valid, change),
            values_and_gradients("einsum", exact[:-1], valid, exact[-1]),
        )
        < tolerance
    )


def test_another_mask_is_noticed():
    inputs, valid, change = arrays()
    other = values_and_gradients(
        "fused", inputs, jnp.roll(valid, 1, axis=1).at[:, 0].set(True), change
    )
    assert error(other, values_and_gradients("einsum", inputs, valid, change)) > 0.1


def test_hidden_keys_change_nothing_and_have_no_gradient():
    inputs, valid, change = arrays()
    query, key, value, *biases = inputs
    found = values_and_gradients("fused", inputs, valid, change)
    other = jnp.where(valid[..., None], key, 7.0), jnp.where(valid[..., None], value, -3.0)
    np.testing.assert_array_equal(
        values_and_gradients("fused", [query, *other, *biases], valid, change)[0], found[0]
    )
    hidden = ~np.asarray(valid)
    assert not np.asarray(found[2])[hidden].any() and not np.asarray(found[3])[hidden].any()


def test_lanes_that_chips_would_share_are_not_fused():
    inputs, valid, change = arrays()
    with (
        jax.set_mesh(tiny.mesh_of(1, 1, 4)),
        pytest.raises(UsageError, match=r"on each of 4 chip\(s\)"),
    ):
        jax.jit(lambda *x: values_and_gradients("fused", x, valid, change))(*inputs)
    assert not why_not_fused(LENGTH, WIDTH, HEADS, 2) and why_not_fused(LENGTH, WIDTH, HEADS, 4)


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 1, 2), (1, 2, 2)], ids=str)
def test_rows_and_heads_may_lie_on_several_chips(shape):
    inputs, valid, change = arrays()
    wanted = values_and_gradients("fused", inputs, valid, change)
    mesh = tiny.mesh_of(*shape)
    specs = [PartitionSpec(("data", "fsdp"), None, "tensor")] * 3 + [PartitionSpec("tensor")] * 2
    put = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip((*inputs, change), (*specs, specs[0]), strict=True)
    ]
    with jax.set_mesh(mesh):
        found = jax.jit(lambda *x: values_and_gradients("fused", x[:5], valid, x[5]))(*put)
    assert error(found, wanted) < 1e-6


@pytest.mark.parametrize(
    ("sizes", "possible"),
    [
        ((197, 768, 12), True),
        ((256, 1024, 16), True),
        ((65, 128, 2), True),
        ((65, 192, 3), False),
        ((600, 768, 12), True),
    ],
)
def test_what_does_not_fit_the_lanes_is_refused_by_name(sizes, possible):
    assert (not why_not_fused(*sizes, 1)) == possible
    length, width, heads = sizes
    x, shift = jnp.zeros((1, length, 3 * width)), jnp.zeros(3 * width)
    if not possible:
        with pytest.raises(UsageError, match=f"{length} tokens of width {width} in {heads} heads"):
            attention(x, shift, heads, None, None, None, "fused")
