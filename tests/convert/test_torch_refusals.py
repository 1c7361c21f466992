"""The exported PyTorch module answers wrong inputs and damaged files with one clear error."""

import shutil
import subprocess
import sys

import pytest
import torch

from tests import tiny
from tests.convert.conftest import write_random_run
from vlbeit_jax.convert.examples import write_examples
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.formats import torch_module
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.errors import Exit


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A run with random parameters."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return write_random_run(folder, tiny.pretrain_config(world), world)


@pytest.fixture(scope="module")
def exported(whole, world, tmp_path_factory):
    """What the command would write, without a process of its own."""
    out = tmp_path_factory.mktemp("exported")
    write_examples(whole, [str(world.pairs)], 1, out)
    torch_module.write(read_run(whole), out)
    (out / "evaluation.json").write_text("{}")
    write_manifest(out)
    return out


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "neither was given"),
        ({"text": torch.ones(1, 17, dtype=torch.long)}, "17 word pieces; the model has 16"),
        ({"text": torch.ones(3, dtype=torch.long)}, r"shape \[3\]; needed is \[B, T\]"),
        (
            {"image": torch.zeros(1, 3, 32, 32), "text": torch.ones(2, 3, dtype=torch.long)},
            "1 images but 2 texts",
        ),
        ({"text": torch.ones(1, 3, dtype=torch.long), "features": (0,)}, "need an image"),
        ({"image": torch.zeros(1, 3, 32, 32), "text_masked": torch.ones(1, 1)}, "needs a text"),
        (
            {"image": torch.zeros(1, 3, 32, 32), "features": (2,)},
            r"features=\[2\]: the model has blocks 0 to 1",
        ),
        ({"image": torch.zeros(1, 3, 64, 64)}, r"shape \[1, 3, 64, 64\]; needed is .* = 32$"),
        ({"image": torch.zeros(1, 32, 32, 3)}, r"shape \[1, 32, 32, 3\]; needed is"),
        (
            {"image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)},
            r"torch.uint8; call normalise\(pixels\)",
        ),
    ],
)
def test_inputs_that_the_model_cannot_take_are_refused(exported, inputs, said):
    model, tokenizer = module_of(exported / "vlbeit_torch.py").load(exported)
    with pytest.raises(ValueError, match=said):
        model(**inputs)
    with pytest.raises(ValueError, match="width = 32 or a multiple"):
        tokenizer.encode(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch_size=0"], "--batch_size=0: give at least 1"),
        (["--json=none/found.json"], "--json=none/found.json: name a file in an existing folder"),
        ([], "evaluation.safetensors is damaged or cut off"),
    ],
)
def test_evaluate_says_in_one_message_what_is_wrong(exported, tmp_path, arguments, said):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    if not arguments:
        with (out / "evaluation.safetensors").open("ab") as file:
            file.write(b"x")
    done = subprocess.run(
        [sys.executable, "evaluate.py", *arguments], cwd=out, capture_output=True, text=True
    )
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_cut_off_checkpoint_is_one_message_and_leaves_nothing(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    largest = max(
        (run / "checkpoints").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    done = tiny.command(
        "vlbeit_jax.convert", f"--from={run}", "--to=torch", f"--out={tmp_path / 'out'}"
    )
    assert (
        done.returncode == Exit.DAMAGED
        and "is damaged" in done.stderr.splitlines()[-1]
        and "Traceback" not in done.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"config.json": {"sha256": "0"}}', '{"config.json": 3}']
)
def test_a_manifest_of_something_else_is_refused(exported, tmp_path, content):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(exported / name)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json is not the one"):
        module_of(exported / "vlbeit_torch.py").load(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "config"])
def test_a_damaged_folder_is_one_clear_error(exported, tmp_path, damage):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    weights = out / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    elif damage == "cut":
        del content[-5:]
    if damage == "gone":
        weights.unlink()
    elif damage == "config":
        (out / "config.json").write_text(
            (out / "config.json").read_text().replace('"depth": 2', '"depth": 1')
        )
    else:
        weights.write_bytes(content)
    with pytest.raises(
        ValueError, match="config.json" if damage == "config" else "model.safetensors"
    ):
        module_of(out / "vlbeit_torch.py").load(out)


def test_weights_of_another_size_are_refused(exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    (out / "config.json").write_text(
        (out / "config.json").read_text().replace('"depth": 2', '"depth": 1')
    )
    write_manifest(out)
    with pytest.raises(ValueError, match="(?s)do not fit config.json.*blocks.1"):
        module_of(out / "vlbeit_torch.py").load(out)
