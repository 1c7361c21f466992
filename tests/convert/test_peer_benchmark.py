"""The train step in PyTorch is the train step in JAX, and the benchmark that times both tells when it is not."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax import benchmark
from vlbeit_jax.config import VisualTokenizerConfig
from vlbeit_jax.convert import peer_benchmark, peer_step
from vlbeit_jax.convert.formats.torch_tables import model_table
from vlbeit_jax.convert.rules import exported
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks.abstract import abstract_step

VISUAL = VisualTokenizerConfig(
    image_size=32, patch_size=8, width=32, heads=2, ffn_width=64, encoder_depth=1, decoder_depth=1, codes=32, code_width=8
)


def peer_config(folder, schedule="image+text+pair", drop_path=0.0, **optimizer):
    config = tiny.pretrain_config(tiny.world_in(folder), schedule=schedule)
    model, rule = dataclasses.replace(config.model, depth=2, drop_path=drop_path), dataclasses.replace(config.optimizer, **optimizer)
    return dataclasses.replace(config, model=model, optimizer=rule, visual_tokenizer=VISUAL)


def parts(config):
    """JAX's step, its start, the frozen tokenizer and batches."""
    step, make_state, _, frozen, shapes = abstract_step(config, tiny.mesh_of())
    return step, make_state(0), benchmark._random(frozen, config), benchmark._random(shapes, config)


def test_the_command_times_both_sides_and_finds_them_equal(tmp_path):
    out = tmp_path / "speed.json"
    config = tiny.config_file(peer_config(tmp_path), tmp_path)
    done = tiny.command("vlbeit_jax.benchmark", f"--config={config}", "--peer=torch", "--steps=3", "--warmup=1", f"--json={out}")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    terms = {"mim/loss", "mlm/loss", "mvlm_image/loss", "mvlm_text/loss", "grad_norm"}
    assert found["agrees"] and set(found["first_step"]) == set(found["last_step"]) == terms
    assert all(value["relative"] < 1e-5 for value in found["first_step"].values())
    assert all(value["relative"] < 1e-3 for value in found["last_step"].values())
    assert found["last_step"]["mlm/loss"]["jax"] < found["first_step"]["mlm/loss"]["jax"]
    for clock in ("step_seconds", "cpu_seconds"):
        assert all(0 < each["min"] <= each["median"] <= each["max"] and len(each["quartiles"]) == 3 for each in found[clock].values())


def test_parameters_stay_the_same_under_clipping_and_decay(tmp_path):
    config = peer_config(tmp_path, "image", weight_decay=200.0, clip_norm=0.1)  # Texts' expert and head decay without a gradient.
    step, state, frozen, batches = parts(config)
    before = peer_step.Arrays(state.params)
    peer = peer_step.TorchStep(config, state.params, frozen, 3)
    for _ in range(3):
        state, metrics = step(state, frozen, batches)
        theirs = peer({name: peer.batch(rows) for name, rows in batches.items()})
    for name in theirs:
        np.testing.assert_allclose(metrics[name], theirs[name], rtol=1e-4)
    after, before = peer.model.state_dict(), before["encoder/block_0/language/up/kernel"]
    assert np.abs(after["encoder.blocks.0.experts.language.up.weight"].numpy().T / before - 0.64).max() < 0.01
    for each in exported(model_table(config.model), peer_step.Arrays(state.params)):
        np.testing.assert_allclose(after[each.name].numpy(), each.read(), atol=2e-4, err_msg=each.name)


def test_kept_visual_tokens_are_the_targets_of_both_sides(tmp_path):
    config = peer_config(tmp_path, "image")
    data = dataclasses.replace(config.data, visual_tokens="TOKENS", image=dataclasses.replace(config.data.image, views=2))
    step, state, frozen, batches = parts(config := dataclasses.replace(config, data=data))
    assert not frozen and "image_targets" in batches["image"]
    assert peer_benchmark.compare(config, step, state, frozen, batches, steps=2, warmup=1)["agrees"]


CHANGES = {"none": ("", ""), "gelu": ("functional.gelu(", "functional.silu("), "expert": ("len(layout) > 1 and", "len(layout) > 2 and")}


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_does_not_agree(tmp_path, monkeypatch, change):
    text, (old, new) = (peer_step.STANDALONE / "vlbeit_torch.py").read_text(), CHANGES[change]
    assert not old or text.count(old) == 1
    (tmp_path / "vlbeit_torch.py").write_text(text.replace(old, new) if old else text)
    monkeypatch.setattr(peer_step, "STANDALONE", tmp_path)
    config = peer_config(tmp_path, "pair")
    step, state, frozen, batches = parts(config)
    rng = np.random.default_rng(0)  # Fresh residuals are so small that hardly anything depends on them.
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), state.params)
    state = dataclasses.replace(state, params=params)
    agrees = peer_benchmark.compare(config, step, state, frozen, batches, steps=2, warmup=1)["agrees"]
    assert agrees == (change == "none")


@pytest.mark.parametrize(("change", "said"), [({"drop_path": 0.2}, "model.drop_path=0.2"), ({"schedule": "image,text"}, "run.schedule")])
def test_what_cannot_be_compared_is_refused_by_name(tmp_path, change, said):
    config = tiny.config_file(peer_config(tmp_path, **change), tmp_path)
    done = tiny.command("vlbeit_jax.benchmark", f"--config={config}", "--peer=torch", "--steps=2")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_several_devices_and_microbatches_are_refused(tmp_path):
    config = peer_config(tmp_path)
    with pytest.raises(UsageError, match="8 devices"):
        peer_benchmark.check_comparable(config)
    with pytest.raises(UsageError, match=r"run\.accumulate=2"):
        peer_benchmark.check_comparable(dataclasses.replace(config, run=dataclasses.replace(config.run, accumulate=2)))
