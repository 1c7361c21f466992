"""A digest of every array of a tree: two sums of 32 bits, over all elements.

Each element's bits are mixed with its position and with the array's name before they are added. So
a flipped bit, two exchanged elements and two exchanged arrays change the sums. Sums of integers
that wrap around do not depend on their order: a digest is the same for every mesh and number of
processes, and on the host. Two states have one digest by chance with a probability of about 2^-64.
It is no protection against somebody who wants to deceive.
"""

import functools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.shapes import Array, Shaped, Tree, UInt
from vlbeit_jax.training.param_names import leaf_name

# Types of the words that an element of so many bytes has; one of eight has two words.
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}
# Odd constants of hash functions that mix well: MurmurHash3's finaliser, lowbias32 of Wellons'
# "Prospecting for hash functions" (2018), and the golden ratio.
MURMUR, LOWBIAS = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16), (16, 0x7FEB352D, 15, 0x846CA68B, 16)
GOLDEN = 0x9E3779B9
RUINED = 1e18  # A parameter of this size is of no use; in float32, its square still fits.
CHUNK = 2**17  # Elements that the host mixes at once.


class Digest(NamedTuple):
    """What is computed of an array.

    Attributes:
      text: the digest, 16 hexadecimal digits.
      ruined: numbers that are not finite, or at least ``RUINED``.
    """

    text: str
    ruined: int


def tree_digests(tree: Tree) -> dict[str, Digest]:
    """Returns the digest of each array by name.

    Arrays on devices are read there. Every process must call it if they lie on several.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = {}
    for path, leaf in leaves:
        name = leaf_name(path)
        sums[name] = (_on_host if is_here(leaf) else _on_device)(leaf, _seed(name))
    return {name: _digest(of_leaf) for name, of_leaf in jax.device_get(sums).items()}


def array_digest(name: str, array: np.ndarray) -> str:
    """Returns the digest of one array of a tree, computed on the host.

    Args:
      name: of the array in its tree.
      array: of any shape.
    """
    return _digest(_on_host(array, _seed(name))).text


def is_here(leaf: Any) -> bool:
    """Returns whether the host reads an array without a copy, so that nothing is compiled."""
    if not isinstance(leaf, jax.Array):
        return True
    on_cpu = all(device.platform == "cpu" for device in leaf.devices())
    return on_cpu and leaf.is_fully_addressable and leaf.is_fully_replicated


def _digest(sums: UInt[np.ndarray, "3"]) -> Digest:
    first, second, ruined = map(int, sums)
    return Digest(f"{first:08x}{second:08x}", ruined)


def _seed(name: str) -> np.uint32:
    return np.uint32(zlib.crc32(name.encode()))


def _on_device(leaf: Shaped[Array, "..."], seed: np.uint32) -> UInt[Array, "3"]:
    placed = leaf.sharding
    if isinstance(placed, jax.sharding.NamedSharding):
        placed = jax.sharding.NamedSharding(placed.mesh, jax.sharding.PartitionSpec())
    sums = _compiled(placed)(leaf, seed)
    # Devices that a CPU simulates share its threads. If programs that add over devices run at the
    # same time, each may wait for a thread that another one holds.
    simulated = any(device.platform == "cpu" for device in leaf.devices())
    return jax.block_until_ready(sums) if simulated else sums


@functools.cache
def _compiled(placed: jax.sharding.Sharding) -> Any:
    return jax.jit(_sums_on_device, out_shardings=placed)


def _sums_on_device(leaf: Shaped[Array, "..."], seed: Array) -> UInt[Array, "3"]:
    words = jax.lax.bitcast_convert_type(_words_of(leaf), WORDS[leaf.dtype.itemsize])
    strides = np.cumprod([1, *reversed(words.shape)], dtype=np.uint32)[-2::-1]
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, stride in enumerate(strides):
        along = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position + along * np.uint32(stride)
    first, second = _mixed(words.astype(jnp.uint32), position, seed)
    sums = (first, second, _is_ruined(leaf))
    return jnp.stack([each.sum(dtype=jnp.uint32) for each in sums])


def _is_ruined(leaf: Any) -> Any:
    """Whether each number is ruined; NaN is below nothing."""
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    return ~(abs(leaf) < np.float32(RUINED)) if is_float else (leaf != leaf)


def _words_of(leaf: Any) -> Any:
    return leaf.astype(np.uint8) if leaf.dtype == bool else leaf


def _on_host(leaf: Any, seed: np.uint32) -> UInt[np.ndarray, "3"]:
    flat = _words_of(np.ascontiguousarray(leaf).reshape(-1))
    words, sums = flat.view(WORDS[flat.dtype.itemsize]), np.zeros(3, np.uint64)
    sums[2] = _is_ruined(flat).sum()
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK].astype(np.uint32)
        position = (start + np.arange(len(part))).astype(np.uint32)
        sums[:2] += [each.sum(dtype=np.uint64) for each in _mixed(part, position, seed)]
    return sums.astype(np.uint32)


def _mixed(words: Any, position: Any, seed: Any) -> tuple[Any, Any]:
    """Returns two mixtures of each word with its position and the seed; each is one to one."""
    key = _mix((position + seed) * np.uint32(GOLDEN), LOWBIAS)
    first = _mix(words ^ key, MURMUR)
    return first, _mix(first + key * np.uint32(GOLDEN), LOWBIAS)


def _mix(bits: Any, constants: tuple[int, int, int, int, int]) -> Any:
    """Returns a one-to-one mixture of 32 bits, for arrays of NumPy and of JAX."""
    shift, factor, *rest = map(np.uint32, constants)
    bits = (bits ^ (bits >> shift)) * factor
    bits = (bits ^ (bits >> rest[0])) * rest[1]
    return bits ^ (bits >> rest[2])
