"""The exported PyTorch module: the same network, figures and weights."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests import tiny
from tests.convert.conftest import one_scheme, write_random_run
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.convert import examples
from vlbeit_jax.convert.formats import torch_module
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.runtime import pretrained
from vlbeit_jax.training.mesh import make_mesh


def convert(*arguments):
    return tiny.command("vlbeit_jax.convert", *arguments)


@pytest.fixture(scope="module")
def exported(random_run, world, tmp_path_factory):
    out = tmp_path_factory.mktemp("torch") / "out"
    data = [f"--data={world.pairs}", f"--data={world.texts}"]
    done = convert(
        f"--from={random_run}", "--to=torch", f"--out={out}", "--verify", "--draws=2", *data
    )
    assert done.returncode == 0, done.stderr
    return out


def test_both_sides_agree_on_images_texts_and_pairs(exported):
    found = json.loads((exported / "verify.json").read_text())
    assert {name.split("/")[0] for name in found["cases"]} == {
        "image",
        "image_masked",
        "text",
        "pair",
        "visual_tokenizer",
    }
    assert (
        found["max_abs"] == max(case["max_abs"] for case in found["cases"].values()) < 2e-5
        and found["limit"] == 1e-4
    )


@one_scheme
@pytest.mark.parametrize("change", ["tanh", "eps", "padding"])
def test_another_network_is_told_apart(exported, random_run, pairs_only, tmp_path, change):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    text = (out / "vlbeit_torch.py").read_text()
    before, after = {
        "tanh": (
            "functional.gelu(self.up(self.norm(x)))",
            "functional.gelu(self.up(self.norm(x)), approximate='tanh')",
        ),
        "eps": ("    eps: float = 1e-6", "    eps: float = 1e-5"),
        "padding": ("text != self.pad", "text == text"),
    }[change]
    assert text.count(before) == 1
    (out / "vlbeit_torch.py").write_text(
        text.replace(before, after).replace('config["layer_norm_eps"]', "Shape.eps")
    )
    found = torch_module.check(read_run(random_run), out)
    assert not found.write(out) and found.summary()["max_abs"] > 1e-4


@one_scheme
def test_held_out_accuracies_are_the_same_in_a_clean_environment(exported, world):
    """Nothing but torch and safetensors is loaded; figures agree to the fourth digit."""
    code = "import runpy, sys\n"
    code += "sys.argv = ['evaluate.py', '--json', 'found.json']; sys.path.insert(0, '.')\n"
    code += "try: runpy.run_path('evaluate.py', run_name='__main__')\n"
    code += "except SystemExit as end: assert not end.code\n"
    code += (
        "assert not {'jax', 'flax', 'vlbeit_jax', 'tensorflow', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exported, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((exported / "found.json").read_text())
    wanted = json.loads((exported / "evaluation.json").read_text())  # What JAX has measured.
    assert f"(JAX {wanted['mim']['accuracy']:.4%})" in done.stdout
    assert wanted["draws"] == 2 and str(world.pairs) not in json.dumps(wanted)
    assert wanted["data"][0]["folder"] == world.pairs.name
    card = (exported / "README.md").read_text()
    assert "`vlbeit_jax.evaluate` on `pairs`, `texts`" in card
    assert f"| `mim/accuracy` | {wanted['mim']['accuracy']:.2%} |" in card
    assert found.keys() == {"mim", "mlm", "mvlm_image", "mvlm_text"}
    for term, figures in found.items():
        assert figures["count"] == wanted[term]["count"]
        assert abs(figures["accuracy"] - wanted[term]["accuracy"]) < 1e-4 and np.isclose(
            figures["loss"], wanted[term]["loss"], rtol=1e-5
        )


@one_scheme
def test_visual_tokens_are_the_same_on_100_images(exported, random_run):
    run = read_run(random_run)
    module = module_of(exported / "vlbeit_torch.py")
    _, tokenizer = module.load(exported)
    images = np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3), np.uint8)
    network = VisualTokenizer(run.visual.config, 193)
    from vlbeit_jax.convert.source import as_tree

    arrays = run.visual.params
    params = as_tree({name: jnp.asarray(arrays[name]) for name in arrays if name != "codebook"})

    def applied(method, *given):
        return np.asarray(
            jax.jit(lambda *x: network.apply({"params": params}, *x, method=method))(*given)
        )

    ours = applied("encode", images, arrays["codebook"])
    with torch.no_grad():
        pixels = module.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
        theirs = tokenizer.encode(pixels).numpy()
        decoded = tokenizer.decode(torch.tensor(ours.tolist())).numpy()
    assert (ours == theirs).mean() >= 0.999 and len(np.unique(ours)) > 3
    vectors = arrays["codebook"][ours]
    np.testing.assert_allclose(decoded, applied("decode", vectors), atol=1e-5)


def test_features_are_maps_after_the_blocks_that_were_asked_for(exported):
    module = module_of(exported / "vlbeit_torch.py")
    model, _ = module.load(exported)
    with torch.no_grad():
        image = torch.rand(2, 3, 32, 32) * 2 - 1
        found = model(image=image, features=(1, 0))
        last = model.encoder.norm(found.features[0].flatten(2).transpose(1, 2))
    assert [tuple(x.shape) for x in found.features] == [(2, 32, 4, 4)] * 2
    torch.testing.assert_close(last, found.image)
    assert (
        found.text is None
        and found.image_logits is None
        and tuple(found.image_cls.shape) == (2, 32)
    )


def test_weights_lie_there_bit_for_bit(exported, random_run):
    module = module_of(exported / "vlbeit_torch.py")
    model, tokenizer = module.load(exported)
    run = read_run(random_run)
    np.testing.assert_array_equal(
        model.encoder.norm.weight.detach().numpy(), run.params["encoder/norm/scale"]
    )
    np.testing.assert_array_equal(
        model.language_head.weight.detach().numpy(),
        run.params["language_head/kernel"].T[: tiny.PIECES],
    )
    np.testing.assert_array_equal(tokenizer.codebook.numpy(), run.visual.params["codebook"])
    assert (exported / "text_tokenizer" / "sentencepiece.model").is_file()


@one_scheme
def test_examples_hold_every_image_once_and_may_be_read_like_the_rest(exported, random_run, world):
    """Of two draws: twice as many masks as images."""
    found = load_file(exported / "evaluation.safetensors")
    records = pretrained.records_of(
        pretrained.open_run(random_run), [open_set(str(world.pairs))], "pair"
    )
    assert len(found["pair/image"]) == len(records) and len(
        found["pair/masked_patches"]
    ) == 2 * len(records)
    assert (
        len(
            {
                (exported / name).stat().st_mode
                for name in ("evaluation.safetensors", "model.safetensors", "config.json")
            }
        )
        == 1
    )


@one_scheme
def test_examples_are_kept_batch_by_batch(monkeypatch, exported, random_run, world, tmp_path):
    """Batches that the records do not fill give the same file."""
    monkeypatch.setattr(examples, "ROWS", 5)
    examples.write_examples(random_run, [str(world.pairs), str(world.texts)], 2, tmp_path)
    found, wanted = (
        load_file(folder / "evaluation.safetensors") for folder in (tmp_path, exported)
    )
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@one_scheme
def test_data_that_no_stream_can_use_are_refused_as_the_evaluation_does(
    random_run, world, tmp_path
):
    images = tmp_path / "images"
    shutil.copytree(random_run, images)
    shutil.rmtree(images / "text_tokenizer")
    with pytest.raises(
        UsageError, match=r"nothing in .*texts can be scored by this run's streams \(image\)"
    ) as wanted:
        pretrained.evaluate(
            pretrained.open_run(images), [str(world.texts)], make_mesh(MeshConfig()), draws=1
        )
    done = convert(
        f"--from={images}", "--to=torch", f"--out={tmp_path / 'out'}", f"--data={world.texts}"
    )
    assert (
        done.returncode == 2
        and done.stderr == f"error: {wanted.value}\n"
        and not (tmp_path / "out").exists()
    )


@pytest.mark.slow
def test_base_size_agrees_within_the_limit(world, tmp_path):
    from vlbeit_jax.config.networks import SIZES, ModelConfig

    config = tiny.changed(tiny.pretrain_config(world), task={"model": ModelConfig(**SIZES["base"])})
    run = write_random_run(tmp_path / "run", config)
    done = convert(f"--from={run}", "--to=torch", f"--out={tmp_path / 'out'}", "--verify")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["max_abs"] < 1e-4
