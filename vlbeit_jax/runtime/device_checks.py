"""Whether the devices compute what they should: a product in bfloat16, and a tiny train step."""

import glob
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.streams import TextStreamConfig
from vlbeit_jax.errors import Exit, Reported, UsageError
from vlbeit_jax.runtime import machine
from vlbeit_jax.runtime.devices import devices, in_words
from vlbeit_jax.runtime.synthetic import random_batches, random_state, random_weights
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.mesh import make_mesh

SIDE = 512
# Sums in float32 are within 1e-5 of the largest value. Of bfloat16, they would be off by 1e-2.
TOLERANCE = 1e-3
SEED = 0


class BrokenDevice(Reported):
    """A device that computes something wrong."""

    code = Exit.DEFECT


def found_devices() -> str:
    """Returns the devices in words.

    Raises:
      UsageError: JAX uses the CPU although the machine has a GPU or a TPU.
    """
    said = in_words(devices())
    if jax.default_backend() == "cpu" and not os.environ.get("JAX_PLATFORMS"):
        card = machine.card().get("card")
        chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
        if card or chips:
            extra, what = ("cuda", card) if card else ("tpu", "a TPU")
            raise UsageError(
                f"JAX uses the CPU, but this machine has {what}; run launch/install.sh {extra}, "
                "and check that no other program uses it"
            )
    return said


def product() -> str:
    """Multiplies two matrices in bfloat16 on every device.

    Raises:
      BrokenDevice: a device has another result than the host.
    """
    rng = np.random.default_rng(SEED)
    one, other = (jnp.asarray(rng.standard_normal((SIDE, SIDE)), jnp.bfloat16) for _ in "ab")
    exact = np.asarray(one, np.float64) @ np.asarray(other, np.float64)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    worst = seconds = 0.0
    for device in jax.local_devices():
        placed = jax.device_put((one, other), device)
        jax.block_until_ready(multiply(*placed))
        began = time.monotonic()
        actual = np.asarray(multiply(*placed), np.float64)
        seconds = max(seconds, time.monotonic() - began)
        worst = max(worst, float(abs(actual - exact).max() / abs(exact).max()))
        if not worst < TOLERANCE:
            raise BrokenDevice(
                f"device {device} multiplies wrongly: an error of {worst:.1e} of the largest value,"
                f" where at most {TOLERANCE} is right; use another device, or another driver"
            )
    return f"{SIDE} x {SIDE}, right within {worst:.0e}, {1000 * seconds:.1f} ms at most"


def tiny_step() -> str:
    """Takes one step of pretraining on random texts, with a network of one block.

    Raises:
      BrokenDevice: its loss is not finite, or far from that of a guess.
    """
    config = Config(
        task=Pretrain(
            schedule="text",
            model=ModelConfig(
                image_size=16,
                patch_size=8,
                width=16,
                depth=1,
                heads=2,
                ffn_width=16,
                fused_layers=0,
                text_positions=8,
                vocabulary=40,
                drop_path=0.0,
            ),
            text=TextStreamConfig(batch_size=jax.device_count(), text_length=8),
        ),
        run=RunConfig(steps=1),
    )
    mesh = make_mesh(config.mesh)
    step, _, shapes, frozen, rows = abstract_step(config, mesh)
    batches = random_batches(config, rows, SEED)
    state, metrics = step(random_state(shapes, SEED), random_weights(frozen, SEED), batches)
    loss, refused = (float(np.asarray(metrics[name])) for name in ("mlm/loss", "refused"))
    guess = math.log(config.task.model.vocabulary)
    if refused or not abs(loss) < 10 * guess:
        raise BrokenDevice(
            f"one step of a tiny network has the loss {loss}, where about {guess:.1f} is right; "
            "use another device, or another driver"
        )
    return f"loss {loss:.2f}, compiled in {step.total_compile_seconds:.1f} s"
