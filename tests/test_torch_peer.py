"""PyTorch's train step agrees with JAX's, and the benchmark notices when it does not."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest
import torch

from tests import tiny
from tools.torch_peer import compare, masked_prediction, train_step
from tools.torch_peer.weights import arrays_of
from vlbeit_jax.convert.formats.torch_tables import model_table
from vlbeit_jax.convert.rules import export
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.synthetic import random_batches, random_weights
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.types import Special

VISUAL = tiny.vqkd_config(tiny.world_in(pathlib.Path("nowhere"))).task.model


def peer_config(folder, schedule="image+text+pair", drop_path=0.0, **optimizer):
    config = tiny.pretrain_config(tiny.world_in(folder), schedule=schedule)
    task = {"model": {"drop_path": drop_path}, "tokenizer_model": VISUAL}
    return tiny.changed(config, task=task, optimizer=optimizer)


def parts(config):
    """JAX's step, its start, the frozen tokenizer and batches."""
    step, make_state, _, frozen, shapes = abstract_step(config, tiny.mesh_of())
    return step, make_state(0), random_weights(frozen, 0), random_batches(config, shapes, 0)


def parts_batches(config, seed):
    shapes = abstract_step(config, tiny.mesh_of()).batches
    return {
        stream: {name: np.asarray(value) for name, value in rows.items()}
        for stream, rows in random_batches(config, shapes, seed).items()
    }


def in_type(matmul, config):
    networks = ("model", "tokenizer_model")
    return tiny.changed(config, task=dict.fromkeys(networks, {"matmul": matmul}))


def cached_tokens(config):
    views = dict.fromkeys(("image", "pair"), {"views": 2})
    return tiny.changed(config, task={"visual_tokens": "TOKENS"} | views)


@functools.cache
def compiled_step(config):
    """JAX's step, compiled once per configuration: the controls change PyTorch's side only."""
    return abstract_step(config, tiny.mesh_of())


def compared(config, peer="torch-eager"):
    """Compares both sides in this process, as on one device."""
    one_device = {
        "abstract_step": lambda config, _: compiled_step(config),
        "make_mesh": lambda _: None,
        "check_comparable": lambda _: None,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in one_device.items():
            patch.setattr(compare, name, value)
        return compare.compare(config, peer, steps=2, warmup=1)


def test_the_command_times_both_sides_and_finds_them_equal(tmp_path):
    out = tmp_path / "speed.json"
    config = tiny.config_file(peer_config(tmp_path), tmp_path)
    done = tiny.command(
        "tools.torch_peer",
        f"--config={config}",
        "--steps=3",
        "--warmup=1",
        f"--json={out}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    terms = {"mim/loss", "mlm/loss", "mvlm_image/loss", "mvlm_text/loss", "grad_norm"}
    assert found["agrees"] and set(found["first_step"]) == set(found["last_step"]) == terms
    assert all(value["relative"] < 1e-5 for value in found["first_step"].values())
    assert all(value["relative"] < 1e-3 for value in found["last_step"].values())
    assert found["last_step"]["mlm/loss"]["jax"] < found["first_step"]["mlm/loss"]["jax"]
    assert (
        found["platform"] == "cpu"
        and "eager, float32" in found["peer"]
        and {"python", "jax", "torch"} <= found["versions"].keys()
    )
    for side in ("jax", "torch"):
        rates, seconds = found[side], found["step_seconds"][side]["median"]
        assert rates["samples_per_second"] == pytest.approx(
            sum(found["batch_sizes"].values()) / seconds
        )
        assert rates["mfu"] == pytest.approx(
            found["model_flops"] / seconds / found["peak_flops_per_second"]
        )
        assert rates["peak_memory_bytes"] is None  # Nobody counts a CPU's.
    assert (
        found["times_as_fast"]["min"]
        <= found["times_as_fast"]["median"]
        <= found["times_as_fast"]["max"]
    )
    for clock in ("step_seconds", "cpu_seconds"):
        assert all(
            0 < each["min"] <= each["median"] <= each["max"] and len(each["quartiles"]) == 3
            for each in found[clock].values()
        )


def test_batches_are_like_those_of_training(tmp_path):
    config = peer_config(tmp_path)
    (one, two), (length, patches) = (
        (parts_batches(config, seed) for seed in (0, 1)),
        (config.task.pair.text_length, config.task.model.patches),
    )
    assert not np.array_equal(one["pair"]["image"], two["pair"]["image"])
    for row, places, weights in zip(
        *(one["pair"][name] for name in ("text", "text_masked", "text_weights")), strict=True
    ):
        end = np.flatnonzero(row == Special.SEP)[0]
        used = places[weights > 0]
        assert (
            row[0] == Special.CLS
            and length // 2 <= end + 1
            and (row[end + 1 :] == Special.PAD).all()
            and (row[:end] > 0).all()
        )
        assert len(set(used)) == len(used) > 0 and used.min() > 0 and used.max() < end
    for row in one["pair"]["masked_patches"]:
        assert (
            len(set(row)) == config.task.pair.num_masked_patches
            and row.min() >= 0
            and row.max() < patches
        )
    assert len({(row == Special.PAD).sum() for row in one["pair"]["text"]}) > 1


def test_parameters_stay_the_same_under_clipping_and_decay(tmp_path):
    config = peer_config(
        tmp_path, "image", weight_decay=200.0, clip_norm=0.1
    )  # Texts' expert and head decay without a gradient.
    step, state, frozen, batches = parts(config)
    before = arrays_of(state.params)
    peer = train_step.TorchStep(config, state.params, frozen, 3)
    for _ in range(3):
        state, metrics = step(state, frozen, batches)
        theirs = peer({name: peer.batch(rows) for name, rows in batches.items()})
    for name in theirs:
        np.testing.assert_allclose(metrics[name], theirs[name], rtol=1e-4)
    after, before = peer.model.state_dict(), before["encoder/block_0/language/up/kernel"]
    assert (
        np.abs(after["encoder.blocks.0.experts.language.up.weight"].numpy().T / before - 0.64).max()
        < 0.01
    )
    tensors = export(model_table(config.task.model), arrays_of(state.params))
    for name, value in tensors.items():
        np.testing.assert_allclose(after[name].numpy(), value, atol=2e-4, err_msg=name)


def test_kept_visual_tokens_are_the_targets_of_both_sides(tmp_path):
    _, _, frozen, batches = parts(config := cached_tokens(peer_config(tmp_path, "image")))
    assert not frozen and "image_targets" in batches["image"]
    assert compared(config)["agrees"]


CHANGES = {
    "none": ("", ""),
    "gelu": ("functional.gelu(", "functional.silu("),
    "expert": ("len(layout) > 1 and", "len(layout) > 2 and"),
}


@pytest.mark.parametrize("matmul", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("change", CHANGES)
def test_another_network_does_not_agree(tmp_path, monkeypatch, change, matmul):
    text, (old, new) = (
        (masked_prediction.STANDALONE / "vlbeit_torch.py").read_text(),
        CHANGES[change],
    )
    assert not old or text.count(old) == 1
    (tmp_path / "vlbeit_torch.py").write_text(text.replace(old, new) if old else text)
    monkeypatch.setattr(masked_prediction, "STANDALONE", tmp_path)
    # Cached visual tokens, because in bfloat16 a few tokens of so small a batch may differ.
    config = in_type(matmul, cached_tokens(peer_config(pathlib.Path("WORLD"), "pair")))
    assert compared(config)["agrees"] == (change == "none")


# PyTorch's own compiler uses what PyTorch deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("matmul", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "form", [{}, {"positions": "relative"}, {"decoupled": True, "sub_norm": True}], ids=str
)
def test_the_compiled_step_is_one_graph_a_stream_and_agrees(tmp_path, form, matmul):
    # A process compiles one step at most eight times, and each case here compiles it anew.
    torch.compiler.reset()
    config = in_type(
        matmul,
        cached_tokens(peer_config(tmp_path)) if matmul == "bfloat16" else peer_config(tmp_path),
    )
    config = tiny.changed(config, task={"model": form})
    found = compared(config, "torch-compiled")
    assert found["agrees"] and "torch.compile" in found["peer"]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"drop_path": 0.2}, "model.drop_path=0.2"), ({"schedule": "image,text"}, "task.schedule")],
)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path, change, said):
    config = tiny.config_file(peer_config(tmp_path, **change), tmp_path)
    done = tiny.command("tools.torch_peer", f"--config={config}", "--steps=2")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_several_devices_and_microbatches_are_refused(tmp_path):
    config = peer_config(tmp_path)
    with pytest.raises(UsageError, match="8 devices"):
        compare.check_comparable(config)
    with pytest.raises(UsageError, match=r"run\.accumulate=2"):
        compare.check_comparable(
            dataclasses.replace(config, run=dataclasses.replace(config.run, accumulate=2))
        )


def test_the_benchmark_command_names_the_new_place(tmp_path):
    config = tiny.config_file(peer_config(tmp_path), tmp_path)
    done = tiny.command("vlbeit_jax.benchmark", f"--config={config}", "--peer=torch")
    assert done.returncode == 2 and "python -m tools.torch_peer" in done.stderr
