"""cuDNN's attention against an independent float64 statement of it.

Away from NVIDIA GPUs, JAX's own implementation stands in for cuDNN's. All that is ours is tested
then: padding, lengths, the parts of several devices. ``VLBEIT_TEST_PLATFORM=cuda`` tests the
real one, as tools/gpu_check.sh does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops import cudnn_attention as module
from vlbeit_jax.ops.attention import attention, choose_implementation, group_by_lanes
from vlbeit_jax.ops.device import on_nvidia

BATCH, HEADS, WIDTH = 4, 4, 64
NO_GPU = "needs an NVIDIA GPU: VLBEIT_TEST_PLATFORM=cuda tests/run.sh tests/ops"
needs_gpu = pytest.mark.skipif(not on_nvidia(), reason=NO_GPU)
needs_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight (simulated) devices")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    if not on_nvidia():
        monkeypatch.setattr(module, "IMPLEMENTATION", "xla")


def statement(query, key, value, valid, change):
    """Result and gradients of query, key and value in float64; arrays are [B, L, H, K]."""
    q, k, v, d = (
        np.asarray(x, np.float64).transpose(0, 2, 1, 3) for x in (query, key, value, change)
    )
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if valid is not None:
        logits = np.where(np.asarray(valid)[:, None, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    to_weights = d @ v.swapaxes(-1, -2)
    to_logits = weights * (to_weights - (weights * to_weights).sum(axis=-1, keepdims=True))
    to_query, to_key = (
        to_logits @ k / np.sqrt(q.shape[-1]),
        to_logits.swapaxes(-1, -2) @ q / np.sqrt(q.shape[-1]),
    )
    return [
        x.transpose(0, 2, 1, 3)
        for x in (weights @ v, to_query, to_key, weights.swapaxes(-1, -2) @ d)
    ]


def arrays(length, seed=0):
    """Query, key, value, which keys are valid, change of the result; values that bfloat16 has."""
    rng = np.random.default_rng(seed)
    inputs = [
        jnp.asarray(rng.normal(size=(BATCH, length, HEADS, WIDTH)), jnp.bfloat16) for _ in range(4)
    ]
    lengths = np.array([length, 1, *rng.integers(2, length, BATCH - 2)])
    return *inputs[:3], jnp.arange(length) < lengths[:, None], inputs[3]


def found_by(how, query, key, value, valid, change):
    """What ``statement`` returns, from ``attention``."""

    def mixed(query, key, value):
        parts = [x.reshape(*x.shape[:2], -1) for x in (query, key, value)]
        projected = group_by_lanes(*parts, HEADS)
        return attention(
            projected, jnp.zeros(projected.shape[-1]), HEADS, valid, None, None, how
        ).reshape(query.shape)

    out, backward = jax.vjp(mixed, query, key, value)
    return [out, *backward(change)]


def errors(found, wanted):
    """Of each array, relative to its largest entry."""
    pairs = zip(found, wanted, strict=True)
    return [float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()) for a, b in pairs]


@pytest.fixture
def cudnn(monkeypatch):
    """``attention`` by cuDNN, or by its stand-in where there is none."""
    if not on_nvidia():
        monkeypatch.setattr("vlbeit_jax.ops.attention.what_is_missing", lambda *_: "")
    return functools.partial(found_by, "cudnn")


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("length", [65, 128, 197, 256])
def test_result_and_gradients_are_at_most_twice_as_far_from_float64_as_einsum(
    cudnn, length, masked
):
    query, key, value, valid, change = arrays(length)
    given = query, key, value, valid if masked else None, change
    wanted = statement(*given)
    for own, plain in zip(
        errors(cudnn(*given), wanted), errors(found_by("einsum", *given), wanted), strict=True
    ):
        assert own <= 2 * max(plain, 2**-9), "2 ** -9 is bfloat16's rounding of the result itself"


def test_another_length_is_noticed(cudnn):
    query, key, value, valid, change = arrays(65)
    shorter = jnp.arange(65) < jnp.maximum(valid.sum(axis=1) - 1, 1)[:, None]
    assert (
        max(
            errors(
                cudnn(query, key, value, shorter, change),
                statement(query, key, value, valid, change),
            )
        )
        > 0.1
    )


def test_padding_changes_nothing_and_has_no_gradient(cudnn):
    query, key, value, valid, change = arrays(65)
    found = cudnn(query, key, value, valid, change)
    other = (jnp.where(valid[..., None, None], x, 7).astype(x.dtype) for x in (key, value))
    np.testing.assert_array_equal(cudnn(query, *other, valid, change)[0], found[0])
    hidden = ~np.asarray(valid)
    assert not np.asarray(found[2])[hidden].any() and not np.asarray(found[3])[hidden].any()


@needs_devices
@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 1, 2), (1, 2, 2)], ids=str)
def test_rows_and_heads_may_lie_on_several_devices(cudnn, shape):
    given = arrays(65)
    wanted = cudnn(*given)
    mesh = tiny.mesh_of(*shape)
    rows = PartitionSpec(("data", "fsdp"), None, "tensor")
    specs = [rows, rows, rows, PartitionSpec(("data", "fsdp")), rows]
    put = [
        jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(given, specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        found = jax.jit(cudnn)(*put)
    assert max(errors(found, [np.asarray(x, np.float64) for x in wanted])) < 2**-7


@pytest.mark.skipif(on_nvidia(), reason="there is a suitable GPU")
def test_a_device_that_does_not_suit_is_named():
    with pytest.raises(
        UsageError,
        match="attention=cudnn needs an NVIDIA GPU .the device here is 'cpu'.; use attention=auto",
    ):
        found_by("cudnn", *arrays(65))


def test_types_and_heads_that_cudnn_does_not_take_are_named(monkeypatch):
    monkeypatch.setattr(module, "on_nvidia", lambda: True)
    assert module.what_is_missing(jnp.dtype("float32"), 64).startswith("matmul=bfloat16")
    assert module.what_is_missing(jnp.dtype("bfloat16"), 60).startswith("heads that are 8, 16")
    assert module.what_is_missing(jnp.dtype("bfloat16"), 136).startswith("heads that are 8, 16")


def test_a_bias_is_left_to_einsum_and_refused_by_cudnn(monkeypatch):
    for where in ("ops.cudnn_attention", "ops.attention"):
        monkeypatch.setattr(f"vlbeit_jax.{where}.on_nvidia", lambda: True)
    sizes = (197, 768, 12, jnp.dtype("bfloat16"))
    assert choose_implementation("auto", *sizes, biased=True) == "einsum"
    with pytest.raises(UsageError, match="attention=cudnn needs absolute positions"):
        choose_implementation("cudnn", *sizes, biased=True)


@needs_gpu
def test_auto_takes_cudnn_forward_and_backward():
    text = jax.jit(functools.partial(found_by, "auto")).lower(*arrays(197)).compile().as_text()
    assert "__cudnn$fmhaSoftmax" in text and "__cudnn$fmhaSoftmaxBackward" in text
