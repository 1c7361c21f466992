"""A digest changes with every bit, every exchange and every name, and with nothing else."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import tiny
from vlbeit_jax.training import digest
from vlbeit_jax.training.digest import array_digest, tree_digests

TYPES = [np.float32, jnp.bfloat16, np.float16, np.int32, np.uint8, np.int8, bool]
SHAPES = [(), (1,), (7,), (8, 6), (4, 3, 8), (2, 1, 3, 4)]


def array(shape=(8, 6), dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)


def texts(tree):
    return {name: found.text for name, found in tree_digests(tree).items()}


def stated(name, leaf):
    """The digest as docs/reliability.md states it, in Python's integers, element by element."""
    size = {8: 4}.get(leaf.dtype.itemsize, leaf.dtype.itemsize)
    data = np.ascontiguousarray(leaf).tobytes()
    words = [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
    mask, seed, sums = 2**32 - 1, zlib.crc32(name.encode()), [0, 0]

    def mix(bits, first, factor, second, other, third):
        bits = (bits ^ (bits >> first)) * factor & mask
        bits = (bits ^ (bits >> second)) * other & mask
        return bits ^ (bits >> third)

    murmur, lowbias = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16), (16, 0x7FEB352D, 15, 0x846CA68B, 16)
    for position, word in enumerate(words):
        key = mix((position + seed) * 0x9E3779B9 & mask, *lowbias)
        one = mix(word ^ key, *murmur)
        sums[0] += one
        sums[1] += mix((one + key * 0x9E3779B9) & mask, *lowbias)
    return "".join(f"{each & mask:08x}" for each in sums)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda each: np.dtype(each).name)
def test_host_and_device_compute_what_is_stated(dtype, monkeypatch):
    for shape in SHAPES:
        leaf = array(shape, dtype)
        expected = stated("a/b", leaf)
        assert array_digest("a/b", leaf) == expected
        assert texts({"a": {"b": leaf}}) == {"a/b": expected}
        with monkeypatch.context() as patch:
            patch.setattr(digest, "is_here", lambda leaf: False)
            assert texts({"a": {"b": jnp.asarray(leaf)}}) == {"a/b": expected}, shape


def test_chunks_of_the_host_change_nothing(monkeypatch):
    leaf = array((50,))
    whole = array_digest("a", leaf)
    monkeypatch.setattr(digest, "CHUNK", 7)
    assert array_digest("a", leaf) == whole
    assert array_digest("a", leaf.astype(np.float64)) == stated("a", leaf.astype(np.float64))


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 2, 4)], ids=str)
@pytest.mark.parametrize("axes", [(), ("fsdp",), ("data", "fsdp"), (None, "tensor")], ids=str)
def test_every_layout_gives_the_same_digest(shape, axes, monkeypatch):
    """Even where each device holds a part of the array."""
    leaf, mesh = array((8, 16), seed=1), tiny.mesh_of(*shape)
    placed = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes)))
    monkeypatch.setattr(digest, "is_here", lambda leaf: False)
    assert texts({"a": placed}) == {"a": stated("a", leaf)}


def test_every_flipped_bit_and_every_exchange_is_seen():
    leaf = array((6, 4))
    before, words = array_digest("a", leaf), leaf.view(np.uint32)
    for index in np.ndindex(leaf.shape):
        for bit in range(32):
            words[index] ^= np.uint32(1 << bit)
            assert array_digest("a", leaf) != before
            words[index] ^= np.uint32(1 << bit)
    assert array_digest("a", leaf) == before
    flat = leaf.reshape(-1)
    for one in range(leaf.size):
        for other in range(one):
            flat[[one, other]] = flat[[other, one]]
            assert array_digest("a", leaf) != before
            flat[[one, other]] = flat[[other, one]]
    assert array_digest("a", leaf.T) != before and array_digest("a", leaf.reshape(4, 6)) == before


def test_a_number_exchanged_with_its_negative_is_seen():
    """A sum of words times odd weights would not: they differ in the highest bit alone."""
    one, other = np.float32([1.5, -1.5, 2.0]), np.float32([-1.5, 1.5, 2.0])
    weights = np.uint64([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D])
    plain = [(leaf.view(np.uint32) * weights).sum() % 2**32 for leaf in (one, other)]
    assert plain[0] == plain[1]  # The control.
    assert array_digest("a", one) != array_digest("a", other)


def test_two_exchanged_arrays_of_one_shape_are_seen():
    one, other = array(seed=1), array(seed=2)
    saved, found = texts({"a": one, "b": other}), texts({"a": other, "b": one})
    assert set(saved.values()).isdisjoint(found.values())
    assert saved == texts({"a": one, "b": other})
    assert array_digest("a", one) != array_digest("b", one)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -2e18, 3e30])
def test_numbers_of_no_use_are_counted(value, dtype, monkeypatch):
    leaf = array((6, 4), dtype)
    assert tree_digests({"a": leaf, "b": np.arange(3)})["a"].ruined == 0
    leaf[2, 1] = leaf[5, 3] = value
    assert tree_digests({"a": leaf})["a"].ruined == 2
    monkeypatch.setattr(digest, "is_here", lambda leaf: False)
    assert tree_digests({"a": jnp.asarray(leaf)})["a"].ruined == 2
