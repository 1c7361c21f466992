"""The kind of device that a program is traced for, and how kernels run on several devices.

The compiler cannot partition kernels and library calls over devices. They run inside
``on_own_part``, where every device sees its own rows and its own heads.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, PartitionSpec

from vlbeit_jax.shapes import Array

LANES = 128  # Of a TPU's vector register.


def device_kind() -> str:
    """Returns JAX's name of the devices that the program is traced for, such as "TPU v5e" or "cpu".

    If a program is compiled ahead of time, these are the devices of the ambient mesh, and otherwise
    those of this process.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind


def on_tpu() -> bool:
    """Whether the program is traced for TPUs."""
    return device_kind().startswith("TPU")


def on_nvidia() -> bool:
    """Whether the program is traced for NVIDIA GPUs."""
    return device_kind().startswith("NVIDIA")


def row_major(x: Array) -> Array:
    """Returns ``x``. On an NVIDIA GPU, the last axis of ``x`` and of its gradient is contiguous.

    Left to itself, XLA for GPUs lays the tokens of a whole network out with the batch last, and
    transposes them before and after every product: 12 of 85 ms a step (docs/gpu.md).
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim)))) if on_nvidia() else x


def chips_sharing_heads() -> int:
    """Returns how many parts the compiler partitions the heads into, on the ambient mesh."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in _axes_to_cut().get("heads", ()))


def on_own_part(
    local: Callable[..., Array], inputs: Sequence[Array], layouts: Sequence[Sequence[str | None]]
) -> Array:
    """Calls ``local`` on each device's own part of the inputs.

    Args:
      local: a function of the inputs. Its result has the layout of the first input.
      inputs: arrays.
      layouts: for each input, what each of its dimensions holds: "batch", "heads" or None.
        Dimensions that are left out are not partitioned.

    Returns:
      The results of all devices as one array. Without a mesh, or inside a program that already runs
      per device, ``local`` gets the inputs as they are.
    """
    axes = _axes_to_cut()
    if not axes:
        return local(*inputs)
    specs = tuple(PartitionSpec(*(axes.get(name) for name in layout)) for layout in layouts)
    names = {name for together in axes.values() for name in together}
    return jax.shard_map(
        local, in_specs=specs, out_specs=specs[0], axis_names=names, check_vma=False
    )(*inputs)


def _axes_to_cut() -> dict[str | None, tuple[str, ...]]:
    """Returns the mesh axes along which the compiler still partitions rows and heads."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    free = [name for name, kind in kinds if kind != AxisType.Manual]
    axes: dict[str | None, tuple[str, ...]] = {
        "batch": tuple(name for name in free if name != "tensor"),
        "heads": tuple(name for name in free if name == "tensor"),
    }
    return {where: names for where, names in axes.items() if names}
