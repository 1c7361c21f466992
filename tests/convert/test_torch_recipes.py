"""The lines of docs/convert.md that take the PyTorch file further, run as they stand."""

import copy
import functools
import importlib.util
import re

import pytest
import torch

from tests import tiny
from tests.convert.torch_models import largest_difference, relative_error, rounding_limit
from vlbeit_jax.convert.verify import module_of

START, END = "## Use the PyTorch file in other programs", "## How exact are the exports?"
NEEDS_ONNX = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="ONNX is not installed"
)


def blocks():
    """The section's Python, in order: each a recipe that needs the first one."""
    text = (tiny.TOP / "docs" / "convert.md").read_text()
    return re.findall(r"```python\n(.*?)```", text.split(START)[1].split(END)[0], re.DOTALL)


def random_inputs(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (rows, 3, 64, 64), generator=generator, dtype=torch.uint8)
    pieces = torch.randint(5, 2000, (rows, length), generator=generator)
    pieces[:, 0] = 2
    pieces[0, length // 2 :] = 0
    return pixels, pieces


@pytest.fixture
def run(sample_export, tmp_path, monkeypatch):
    """From words in a recipe to the names that it leaves."""
    module = module_of(sample_export / "vlbeit_torch.py")
    model, _ = module.load(sample_export)
    monkeypatch.chdir(tmp_path)
    eager = functools.partial(torch.compile, backend="aot_eager")  # The C++ compiler takes minutes.
    monkeypatch.setattr(torch, "compile", eager)
    pixels, pieces = random_inputs(2, 12, 0)

    def of(words):
        names = {**vars(module), "model": model, "pixels": pixels, "pieces": pieces, "copy": copy}
        first, (own,) = blocks()[0], [each for each in blocks() if words in each]
        with torch.no_grad():
            exec(first + own, names)
        return names

    return of


@torch.no_grad()
def differs(program, names, rows=3, length=20):
    """The largest difference to the model, on other rows, another length and padding."""
    pixels, pieces = random_inputs(rows, length, 1)
    inputs = {"image": names["normalise"](pixels), "text": pieces}
    return largest_difference(program(**inputs), names["model"](**inputs), pieces)


def test_torch_export(run):
    names = run("torch.export.save")
    assert differs(names["program"], names) < 1e-5
    assert differs(names["program"], names, rows=1, length=64) < 1e-5


@pytest.mark.slow
@NEEDS_ONNX
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:torch.*")
def test_onnx(run):
    import onnxruntime

    names = run("torch.onnx.export")
    session = onnxruntime.InferenceSession("pair.onnx", providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def program(image, text):
        feeds = {"normalised": image.numpy(), "pieces": text.numpy()}
        return {
            name: torch.from_numpy(value)
            for name, value in zip(outputs, session.run(None, feeds), strict=True)
        }

    assert differs(program, names) < 1e-5
    assert differs(program, names, rows=1, length=9) < 1e-5


def test_torch_compile(run):
    names = run("torch.compile")
    assert differs(names["compiled"], names) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:")
def test_torch_jit_trace(run):
    names = run("torch.jit.trace")
    assert differs(names["traced"], names) < 1e-5


def test_data_parallel(run):
    names = run("DataParallel")
    assert differs(names["replicas"], names) == 0


@torch.no_grad()
def test_half_precision(run):
    names = run("bfloat16")
    pixels, pieces = random_inputs(4, 12, 1)
    inputs = {"image": names["normalise"](pixels), "text": pieces}
    error = relative_error(names["half"](**inputs).image, names["model"](**inputs).image)
    assert 2**-11 < error < rounding_limit(torch.bfloat16, depth=4)


def test_the_hub(run, sample_export):
    names = run("from_pretrained")
    original, _ = names["load"](sample_export)
    assert differs(names["model"], names | {"model": original}) == 0
