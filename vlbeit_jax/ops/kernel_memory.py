"""What the attention kernels need in a TPU's memory on the chip, and what it has. No Pallas here.

Whether a kernel is possible is asked on every start; Pallas takes a quarter of a second to import.
"""

import jax.numpy as jnp

from vlbeit_jax.ops.device import LANES, device_kind, on_tpu

QUERIES = 128  # Of a block in ``long_attention``.
MIB = 2**20
# Memory of one core, in MiB, by JAX's name of the chip (jax.experimental.pallas.tpu.get_tpu_info).
VMEM = {
    "TPU v4": 16,
    "TPU v5 lite": 128,
    "TPU v5e": 128,
    "TPU v5": 64,
    "TPU v5p": 64,
    "TPU v6 lite": 128,
    "TPU v6e": 128,
}
LEAST_VMEM = 16  # Of a TPU that is not in the table.
USABLE = 7 / 8  # The compiler keeps some for itself.


def block_lengths(length: int) -> tuple[int, int]:
    """Blocks of ``QUERIES`` that a loop takes, and the queries of the last block, after the loop.

    The last block has between half and one and a half times as many: a block of few queries would
    take almost as long as a whole one.
    """
    looped = max((length - QUERIES // 2) // QUERIES, 0)
    return looped, length - looped * QUERIES


def vmem_bytes(length: int, dtype: jnp.dtype, biased_heads: int, masked: bool) -> int:
    """What a program of ``long_attention`` needs at most, which is in the backward pass.

    Args:
      length: tokens L.
      dtype: of queries, keys and values.
      biased_heads: heads of a group, if a bias is added to the logits, in float32; otherwise 0.
      masked: whether there is a mask of queries by keys; int8.
    """
    rows, columns = _up(length, 32), _up(length, LANES)
    # Two buffers each, one of which is filled or emptied: queries, keys, values and their gradients
    # of one group of heads, and the gradient of the result.
    total = 2 * 7 * rows * LANES * jnp.dtype(dtype).itemsize
    # The sums of the gradients of keys and values.
    total += 2 * rows * LANES * 4
    # Logits, weights, their gradients and what is made of them, of one block of queries.
    total += 8 * max(QUERIES, block_lengths(length)[1]) * columns * 4
    if masked:
        total += 2 * rows * columns
    # A bias and its gradient.
    return total + 2 * 2 * biased_heads * rows * columns * 4


def vmem_here() -> int:
    """Returns the bytes that a kernel may use on the devices that the program is traced for.

    Without a TPU, kernels are only emulated; then it is a v5e's.
    """
    kind = device_kind() if on_tpu() else "TPU v5e"
    return int(VMEM.get(kind, LEAST_VMEM) * MIB * USABLE)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
