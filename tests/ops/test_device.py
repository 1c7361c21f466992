"""What is asked of the compiler for the device that a program is traced for."""

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.ops import device

X = jnp.arange(24.0).reshape(2, 3, 4)


def constraints(function):
    """How many layouts a program fixes."""
    # A new function each time: JAX keeps what it traced for an old one.
    return jax.jit(lambda x: function(x)).lower(X).as_text().count("LayoutConstraint")


def test_row_major_fixes_the_layout_of_value_and_gradient_on_an_nvidia_gpu(monkeypatch):
    monkeypatch.setattr(device, "on_nvidia", lambda: True)
    assert constraints(device.row_major) == 1
    gradient = jax.grad(lambda x: (device.row_major(x) ** 2).sum())
    assert constraints(gradient) == 2
    np.testing.assert_array_equal(jax.jit(gradient)(X), 2 * X)


def test_row_major_leaves_other_devices_alone(monkeypatch):
    monkeypatch.setattr(device, "on_nvidia", lambda: False)
    assert constraints(device.row_major) == 0
    assert device.row_major(X) is X
