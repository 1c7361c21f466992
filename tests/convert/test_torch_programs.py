"""The PyTorch file where users take it: export, compilation, tracing, replicas, half precision."""

import copy
import dataclasses
import io

import pytest
import torch
from torch.export import Dim
from torch.nn.parallel import scatter_gather

from tests.convert.torch_models import (
    FORMS,
    UNITS,
    largest_difference,
    random_model,
    random_pairs,
    relative_error,
    rounding_limit,
)

# Rows, word pieces, and rows that end in padding: other sizes than those of the example.
CASES = [(1, 16, 0), (1, 9, 1), (3, 16, 2), (4, 5, 3)]
UNPADDED = random_pairs(2, 12, 0)


@pytest.fixture(scope="module", params=FORMS)
def made(request):
    return random_model(request.param)


def require_effect_of_padding(model):
    """The control: a program that attends to padding is told apart."""
    inputs = random_pairs(3, 16, 2)
    pad, model.pad = model.pad, -1
    with torch.no_grad():
        attended = model(**inputs)
    model.pad = pad
    with torch.no_grad():
        assert largest_difference(attended, model(**inputs), inputs["text"]) > 1e-2


@torch.no_grad()
def compare(run, model, cases=CASES):
    """Runs a program on inputs of other sizes than its example."""
    for case in cases:
        inputs = random_pairs(*case, seed=1)
        assert largest_difference(run(**inputs), model(**inputs)) < 2e-6, case
    require_effect_of_padding(model)


@pytest.mark.parametrize(
    "made",
    [pytest.param("absolute", marks=pytest.mark.slow), "relative", "BEiT-3's"],
    indirect=True,
)
def test_torch_export_leaves_rows_and_lengths_open(made):
    _, model = made
    rows, length = Dim("rows"), Dim("length", min=3, max=16)
    shapes = {"image": {0: rows}, "text": {0: rows, 1: length}}
    with torch.no_grad():
        program = torch.export.export(model, (), UNPADDED, dynamic_shapes=shapes)
    compare(program.module(), model)
    kept = io.BytesIO()
    torch.export.save(program, kept)
    kept.seek(0)
    found = torch.export.load(kept).module()(**UNPADDED)
    assert type(found).__name__ == "Output" and found.image.shape == (2, 16, 32)


@pytest.mark.parametrize(
    "form",
    [
        "relative",
        *(pytest.param(form, marks=pytest.mark.slow) for form in ("absolute", "BEiT-3's")),
    ],
)
def test_torch_compile_takes_the_whole_model(form):
    """One graph without a break; it is run eagerly, because the C++ compiler takes a minute."""
    _, model = random_model(form)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compare(compiled, model, CASES[2:])
    torch.compiler.reset()


@pytest.mark.parametrize(
    "made",
    [
        *(pytest.param(form, marks=pytest.mark.slow) for form in ("absolute", "relative")),
        "BEiT-3's",
    ],
    indirect=True,
)
def test_a_compiled_program_reads_outputs_by_attribute(made):
    """As the training step of tools/torch_peer does, around the model."""
    _, model = made

    def program(**inputs):
        output = model(**inputs)
        return output.image_logits, output.text.float() * output["text_mean"][:, None]

    logits, product = torch.compile(program, fullgraph=True, backend="aot_eager")(**UNPADDED)
    wanted = model(**UNPADDED)
    assert logits is None
    torch.testing.assert_close(product, wanted.text * wanted.text_mean[:, None])
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:")
def test_a_traced_model_reads_other_padding_and_other_sizes(made):
    _, model = made
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=UNPADDED, strict=False)
    compare(traced, model)


def test_a_copy_is_equal_and_independent(made):
    _, model = made
    inputs = random_pairs(2, 9, 1)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = model(**inputs)
        assert largest_difference(copied(**inputs), before) == 0
        copied.vision_embed.cls.neg_()
        assert largest_difference(copied(**inputs), before) > 1e-2
        assert largest_difference(model(**inputs), before) == 0


def test_data_parallel_joins_outputs_of_replicas(made, monkeypatch):
    """There is no second device here, so copies stand on the CPU, where tensors are joined by cat.

    A dataclass, as outputs were once, is the control.
    """
    module, model = made
    monkeypatch.setattr(
        scatter_gather.Gather, "apply", lambda device, dim, *parts: torch.cat(parts, dim)
    )
    inputs = random_pairs(4, 9, 2) | {"features": (0, 1)}
    parts = [
        {name: value[part] if torch.is_tensor(value) else value for name, value in inputs.items()}
        for part in (slice(0, 3), slice(3, 4))
    ]
    with torch.no_grad():
        found = scatter_gather.gather([model(**part) for part in parts], "cpu")
        wanted = torch.nn.DataParallel(model)(**inputs)
    assert type(found) is type(wanted) is module.Output
    for one, other in zip(found.pop("features"), wanted.pop("features"), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=0)
    assert largest_difference(found, wanted) < 2e-6

    @dataclasses.dataclass
    class Plain:
        image: torch.Tensor

    with pytest.raises(TypeError):
        scatter_gather.gather([Plain(found.image), Plain(found.image)], "cpu")


@pytest.mark.parametrize("dtype", UNITS, ids=str)
def test_half_precision_errs_by_its_rounding_alone(made, dtype):
    _, model = made
    limit = rounding_limit(dtype, depth=2)
    inputs = random_pairs(4, 12, 0)
    half = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        wanted, found = model(**inputs), half(**inputs)
        with torch.autocast("cpu", dtype):
            mixed = model(**inputs)
    for name, value in wanted.items():
        assert found[name].dtype is dtype
        assert relative_error(found[name], value) < limit, name
        assert relative_error(mixed[name], value) < limit, name
    # The control: float16 is eight times as exact, and bfloat16 is not within its limit.
    coarse = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        error = relative_error(coarse(**inputs).image, wanted.image)
    assert error > rounding_limit(torch.float16, depth=2)


def test_an_output_is_a_dictionary_whose_attributes_are_typed():
    module, model = random_model("absolute")
    with torch.no_grad():
        found = model(text=UNPADDED["text"])
    assert list(found) == ["text_cls", "text_mean", "text"]
    assert found.text is found["text"] and found.image is None and found.features is None
    with pytest.raises(AttributeError, match="no output 'images'"):
        found.images  # noqa: B018
    assert type(copy.deepcopy(found)) is module.Output
