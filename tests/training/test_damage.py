"""A damaged step is detected, or what is restored of it is what was saved. It is never used."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from vlbeit_jax.errors import Damaged, UsageError
from vlbeit_jax.training import leaves, saved_step, sealed
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.saved_run import read_newest, restore

FLIPS = 20


def values(scale):
    rng = np.random.default_rng(scale)
    block = {"kernel": rng.normal(size=(64, 32)) * scale, "bias": rng.normal(size=7)}
    return jax.tree.map(np.float32, {"block_0": block, "scale": rng.normal()})


# As a run saves them: the averages look like the parameters, and moments lie in lists.
TREES = {
    "params": values(1),
    "ema": values(2),
    "optimizer": {"moments": [values(3), {"nu": values(4)}], "step": np.int32(1)},
    "model_state": {"image": {"count": np.arange(8, dtype=np.int32)}},
}
WANTED = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ),
    TREES,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with contextlib.closing(Checkpointer(folder)) as checkpointer:
        checkpointer.save(1, TREES, {"must_match": {"seed": 3}, "step": 1})
    return folder


def is_as_saved(folder):
    """Restores all of it, and compares every bit. Raises if it is damaged."""
    checkpointer = Checkpointer(folder, read_only=True)
    found = checkpointer.restore(1, WANTED)
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == b.tobytes(), found, TREES)
    return all(jax.tree.leaves(same)) and checkpointer.describe(1)["must_match"] == {"seed": 3}


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, byte, bit):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_no_flipped_bit_is_silent(saved, copy):
    """In every file once, and in the largest ones more often: where in the file is drawn."""
    assert is_as_saved(copy)
    rng, found = np.random.default_rng(0), {"detected": 0, "harmless": 0}
    names = sorted(
        (path.relative_to(saved) for path in files(saved)),
        key=lambda name: -(saved / name).stat().st_size,
    )
    for name in [*names, *(names[:6] * 5)][-FLIPS - len(names) :]:
        flip(copy / name, int(rng.integers((copy / name).stat().st_size)), int(rng.integers(8)))
        try:
            assert is_as_saved(copy), f"{name}: silent"
            found["harmless"] += 1
        except (Damaged, UsageError):
            found["detected"] += 1
        shutil.copy(saved / name, copy / name)
    assert sum(found.values()) >= FLIPS and found["detected"] >= FLIPS // 2, found


def test_without_digests_a_flip_is_silent(saved, copy, monkeypatch):
    """The control: the same files, read as those of a version that had no digests."""
    monkeypatch.setattr(sealed, "is_sealed", lambda description: False)
    monkeypatch.setattr(saved_step, "FORMAT", 4)
    largest = max(files(copy / "1" / "optimizer"), key=lambda path: path.stat().st_size)
    content, silent = largest.read_bytes(), 0
    for byte in range(0, len(content), len(content) // 10):
        flip(largest, byte, 3)
        with contextlib.suppress(Damaged):
            silent += not is_as_saved(copy)
        largest.write_bytes(content)
    assert silent


@pytest.mark.parametrize("how", ["truncate", "delete", "empty"])
def test_no_missing_content_is_silent(saved, copy, how):
    detected = 0
    for path in files(saved):
        hurt = copy / path.relative_to(saved)
        content = path.read_bytes()
        if how == "delete":
            hurt.unlink()
        else:
            hurt.write_bytes(content[: len(content) // 2] if how == "truncate" else b"")
        try:
            assert is_as_saved(copy), hurt
        except Damaged:
            detected += 1
        shutil.copy(path, hurt)
    assert detected >= 4


@pytest.mark.parametrize("item", ["params", "optimizer", "model_state", "ema", "description"])
def test_a_missing_tree_is_named(copy, item):
    """Not even the averages are taken for those of a run that kept none."""
    shutil.rmtree(copy / "1" / item)
    with pytest.raises(Damaged, match=f"1.* is damaged: .*{item if item != 'description' else ''}"):
        is_as_saved(copy)


def test_a_change_of_the_description_breaks_its_seal(copy):
    path = copy / "1" / "description" / "metadata"
    content = json.loads(path.read_text())
    for change in ({"must_match": {"seed": 4}}, {"format": 2}, {"sha256": "0" * 64}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(Damaged, match="its description is changed"):
            is_as_saved(copy)
    for name in (sealed.ARRAYS, sealed.SEAL):
        path.write_text(json.dumps({key: content[key] for key in content if key != name}))
        with pytest.raises(Damaged, match=f"it has no entry '{name}'"):
            is_as_saved(copy)
    path.write_text(json.dumps(content, indent=2))  # The control: the content counts.
    is_as_saved(copy)


def test_exchanged_trees_are_seen(copy):
    """The averages have the names, types and shapes of the parameters."""
    for one, other in (("params", "x"), ("ema", "params"), ("x", "ema")):
        (copy / "1" / one).rename(copy / "1" / other)
    with pytest.raises(Damaged, match="not what was saved, by the digest of"):
        is_as_saved(copy)


def test_types_and_shapes_of_every_tree_are_compared_before_arrays_are_read(saved):
    step = Checkpointer(saved, read_only=True).step(1)
    for name in ("optimizer", "model_state", "ema"):
        whole = {name: WANTED[name]}
        leaves, structure = jax.tree.flatten(whole)
        for dtype, shape, said in (
            (np.int16, None, "int16 here"),
            (None, (3, 3), r"\(3, 3\) here"),
        ):
            first = leaves[0]
            other = jax.ShapeDtypeStruct(
                shape or first.shape, dtype or first.dtype, sharding=first.sharding
            )
            with pytest.raises(UsageError, match=f"1 holds another {name}:\n.*{said}"):
                step.read(jax.tree.unflatten(structure, [other, *leaves[1:]]), exact=True)


def test_a_saved_half_may_be_read_as_a_float_and_nothing_narrower(tmp_path):
    with contextlib.closing(Checkpointer(tmp_path / "checkpoints")) as checkpointer:
        checkpointer.save(1, {"params": {"a": np.ones(3, np.float16)}}, {})
    like = jax.ShapeDtypeStruct((3,), np.float32)
    found = restore(tmp_path, 1, {"params": {"a": like}})["params"]["a"]
    assert found.dtype == np.float32 and np.array_equal(found, np.ones(3))
    with pytest.raises(UsageError, match="a: float16 there, int32 here"):
        restore(tmp_path, 1, {"params": {"a": jax.ShapeDtypeStruct((3,), np.int32)}})


def test_the_newest_step_that_can_be_read_is_read_and_a_given_one_is_the_only_one(tmp_path, capsys):
    with contextlib.closing(Checkpointer(tmp_path / "checkpoints", keep_last=3)) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, {"params": {"a": np.full(3, step, np.float32)}}, {})
    wanted = {"params": {"a": jax.ShapeDtypeStruct((3,), np.float32)}}

    def read(step):
        return float(restore(tmp_path, step, wanted)["params"]["a"][0])

    assert read_newest(tmp_path, read) == (3, 3.0) and not capsys.readouterr().err
    (tmp_path / "checkpoints" / "3" / "params" / "_METADATA").write_text("{")
    assert read_newest(tmp_path, read) == (2, 2.0)
    said = capsys.readouterr().err
    assert "checkpoints/3/params is damaged" in said and "step 2 is read instead" in said
    assert read_newest(tmp_path, read, 1) == (1, 1.0)
    with pytest.raises(Damaged, match="3/params is damaged"):
        read_newest(tmp_path, read, 3)
    with pytest.raises(UsageError, match="no checkpoint of step 4; it has those of 1, 2, 3"):
        read_newest(tmp_path, read, 4)
    for step in (1, 2):
        shutil.rmtree(tmp_path / "checkpoints" / str(step) / "params")
    with pytest.raises(Damaged, match="no checkpoint of .* can be read:\n.*3/params"):
        read_newest(tmp_path, read)


@pytest.mark.parametrize("group", [1, 2**30], ids=["one by one", "together"])
def test_a_tree_is_read_in_groups_and_the_damaged_array_is_named(saved, copy, monkeypatch, group):
    """Orbax reads the list of all arrays at every call, so a call for each would be quadratic."""
    monkeypatch.setattr(leaves, "GROUP_BYTES", group)
    calls, read = [], leaves.Leaves._restored
    monkeypatch.setattr(
        leaves.Leaves, "_restored", lambda *given: calls.append(given) or read(*given)
    )
    for name in ("params", "optimizer"):  # The second one holds lists.
        calls.clear()
        tree = Checkpointer(saved, read_only=True).leaves(1, name)
        found = dict(tree.items())
        assert found.keys() == tree.shapes.keys() and len(calls) == (
            len(found) if group == 1 else 1
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(TREES[name]):
            assert found[leaf_name(path)].tobytes() == leaf.tobytes()
    path = copy / "1" / "description" / "metadata"
    content = json.loads(path.read_text())
    content[sealed.ARRAYS]["params"]["block_0/bias"][2] = "0" * 16
    path.write_text(json.dumps(sealed.with_seal(content)))
    with pytest.raises(Damaged, match="by the digest of block_0/bias$"):
        dict(Checkpointer(copy, read_only=True).leaves(1, "params").items())
