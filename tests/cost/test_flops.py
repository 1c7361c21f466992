"""Operations counted in jaxprs equal hand-written formulas, XLA's count and worked examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, PartitionSpec

from tests import tiny
from tests.cost import formulas
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.cost import flops
from vlbeit_jax.cost.flops import Flops, loss_flops
from vlbeit_jax.ops.attention import attention
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import flops_of_streams, step_flops, total
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.types import Positions

STREAMS = dict.fromkeys(("image", "text", "pair"), {"batch_size": 2})
BASE = Config(task=tiny.changed(Pretrain(), **STREAMS))
SHORT_MODELS = {
    "model": {"depth": 2, "fused_layers": 1},
    "tokenizer_model": {"encoder_depth": 2, "decoder_depth": 1},
}
SHORT = tiny.changed(BASE, task=SHORT_MODELS)


def with_model(config, **changed):
    return tiny.changed(config, task={"model": changed})


def vqkd(config, **changed):
    model = dataclasses.replace(config.task.tokenizer_model, **changed)
    return dataclasses.replace(config, task=VQKD(model=model, image=ViewStreamConfig(batch_size=2)))


PAIR = tiny.changed(SHORT, task={"schedule": "pair"})
BASES = {"joint": BASE, "vqkd": vqkd(BASE), "clip": vqkd(BASE, teacher="clip")}
VARIANTS = {
    "alternating": tiny.changed(SHORT, task={"schedule": "image,text+pair"}),
    "vqkd": vqkd(SHORT),
    "remat": with_model(PAIR, remat="full"),
    "remat of all but products": with_model(PAIR, remat="dots"),
    "fused attention": with_model(PAIR, attention="fused"),
    "relative positions": with_model(PAIR, positions=Positions.RELATIVE),
    "drop path": with_model(PAIR, drop_path=0.1),
}


@pytest.mark.parametrize("config", BASES.values(), ids=BASES)
def test_base_size_costs_what_the_formulas_say(config):
    assert step_flops(config) == formulas.step_flops(config)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_how_the_same_is_computed_does_not_change_its_operations(config):
    assert step_flops(config) == formulas.step_flops(config)


@pytest.mark.parametrize("kind", ["TPU v5e", "NVIDIA H100"])
def test_kernels_of_accelerators_are_counted_as_products(kind):
    """A teacher's attention is "auto", which is a kernel there. The control meets the kernel."""
    config = vqkd(SHORT, teacher="clip")
    device = AbstractDevice(kind, None, kind.split()[0].lower())
    accelerator = AbstractMesh((1,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(accelerator):
        assert flops_of_streams(config.task) == {"image": formulas.step_flops(config)}
        if kind.startswith("TPU"):
            x, shift = jax.ShapeDtypeStruct((2, 197, 2304), jnp.float32), jnp.zeros(2304)
            with pytest.raises(NotImplementedError, match="pallas_call"):
                loss_flops(
                    lambda s, x: (attention(x, s, 12, None, implementation="auto").sum(), ()),
                    shift,
                    x,
                )


@pytest.mark.parametrize("config", [PAIR, vqkd(SHORT, teacher="clip")], ids=["pair", "clip"])
def test_xla_counts_the_same_within_five_percent(config):
    """Before optimisation. XLA also counts elementwise operations, so that its count is larger."""
    step = abstract_step(config, tiny.mesh_of())
    by_xla = step.step.lower(step.state, step.frozen, step.batches).cost_analysis()["flops"]
    flops = step_flops(config)
    assert 1 < by_xla / (flops.model + flops.frozen) < 1.05


def test_a_block_is_twelve_squares_of_the_width_and_the_attention():
    length, width = 100, 64
    assert formulas.transformer(length, width, 3, 4 * width) == 3 * (
        2 * length * 12 * width**2 + 4 * length**2 * width
    )


def test_an_alternating_schedule_costs_the_mean_of_its_steps():
    mean = step_flops(VARIANTS["alternating"])
    each = flops_of_streams(SHORT.task)
    steps = [total([each["image"]]), total([each["text"], each["pair"]])]
    for name in mean._fields:
        assert getattr(mean, name) == sum(getattr(step, name) for step in steps) / 2
    assert mean.samples == 3 and mean.tokens == (2 * 197 + 2 * 128 + 2 * 256) / 2


# What follows counts small losses of a weight [4, 5], a frozen weight [6, 4] and rows [7, 6].
WEIGHT, FROZEN, ROWS = (
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 5), (6, 4), (7, 6))
)
TRAINED, LOOKS_ON = 2 * 7 * 4 * 5, 2 * 7 * 6 * 4


def count(hidden, weight=WEIGHT):
    """Counts the loss whose features ``hidden`` computes from weight and frozen features."""
    return loss_flops(lambda w, f, x: (jnp.sum(hidden(w, x @ f)), ()), weight, FROZEN, ROWS)


def test_trained_and_frozen_products_are_told_apart():
    """A trained product costs forward, and backward once: no gradient goes to frozen features."""
    assert count(lambda w, x: x @ w) == Flops(2 * TRAINED, LOOKS_ON)
    # A second product has gradients with respect to both of its operands.
    square = 2 * 7 * 5 * 7
    assert count(lambda w, x: (x @ w) @ (x @ w).T) == Flops(4 * TRAINED + 3 * square, LOOKS_ON)


@jax.custom_vjp
def with_own_backward(w, x):
    return x @ w


def own_backward(saved, change):
    w, x = saved
    again = x @ w  # As attention kernels do, instead of reading what forward has computed.
    return x.T @ (change + 0 * again), change @ w.T


with_own_backward.defvjp(lambda w, x: (x @ w, (w, x)), own_backward)


def on_eight_chips(w, x):
    spec = PartitionSpec(("data", "fsdp"))
    product = jax.shard_map(
        lambda w, x: x @ w,
        mesh=tiny.mesh_of(data=4, fsdp=2),
        in_specs=(PartitionSpec(), spec),
        out_specs=spec,
        check_vma=False,
    )
    return product(w, jnp.pad(x, ((0, 1), (0, 0))))


@pytest.mark.parametrize(
    "hidden",
    [
        jax.jit(lambda w, x: x @ w),
        jax.checkpoint(lambda w, x: jnp.tanh(x @ w)),
        with_own_backward,
        lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: jnp.zeros((7, 5))),
        lambda w, x: jax.lax.map(lambda row: row @ w, x),
        lambda w, x: jax.vmap(lambda row: row @ w)(x),
        lambda w, x: jax.lax.conv(x[..., None], w.T[..., None], (1,), "VALID"),
    ],
    ids=["jit", "checkpoint", "custom_vjp", "cond", "scan", "vmap", "convolution"],
)
def test_one_product_costs_the_same_however_it_is_written(hidden):
    assert count(hidden) == Flops(2 * TRAINED, LOOKS_ON)


def test_every_chips_part_counts():
    assert count(on_eight_chips) == Flops(2 * TRAINED * 8 // 7, LOOKS_ON)


def test_what_a_loop_carries_becomes_trained():
    """The first state is frozen; from the second iteration on it depends on the weight."""
    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    loop = lambda w, x: jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x)  # noqa: E731
    assert count(loop, square) == Flops(3 * 3 * 2 * 7 * 4 * 4, LOOKS_ON)


def test_what_nobody_uses_does_not_count():
    assert count(lambda w, x: (x @ w, x @ x.T)[0]) == Flops(2 * TRAINED, LOOKS_ON)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (lambda w, x: jnp.linalg.cholesky(x.T @ x) @ w, "primitive cholesky"),
        (lambda w, x: jnp.fft.rfft(x @ w).real, "primitive fft"),
        (
            lambda w, x: (
                jax.lax.stop_gradient(
                    jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x.T @ x, x)
                )
                @ w
            ),
            "while loop",
        ),
    ],
    ids=["cholesky", "fft", "while"],
)
def test_what_cannot_be_counted_is_an_error(hidden, message):
    with pytest.raises(NotImplementedError, match=message):
        count(hidden)


def test_the_loss_itself_is_never_computed():
    big = jax.ShapeDtypeStruct((10**9, 10**9), jnp.float32)
    assert np.isclose(loss_flops(lambda w, x: ((x @ w).sum(), ()), big, big).trained, 4e27)


def test_an_unknown_primitive_counts_nothing_only_if_it_is_elementwise(monkeypatch):
    """Each release of JAX has new elementwise primitives, and training must not end there."""
    monkeypatch.setattr(flops, "UNCOUNTED", flops.UNCOUNTED - {"tanh", "reduce_max"})
    assert count(lambda w, x: jnp.tanh(x @ w)) == Flops(2 * TRAINED, LOOKS_ON)
    with pytest.raises(NotImplementedError, match="primitive reduce_max"):
        count(lambda w, x: (x @ w).max())
