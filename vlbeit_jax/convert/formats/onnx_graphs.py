"""ONNX: one graph for each kind of input, made from the PyTorch module.

Every graph takes pixels as they are (uint8), and any number of rows and word pieces.
"""

import contextlib
import json
import logging
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import vlbeit_jax.convert.formats.torch_finetuned as torch_finetuned
import vlbeit_jax.convert.formats.torch_module as torch_module
from vlbeit_jax.convert.card import Subject, of_finetuned, of_run, write_card
from vlbeit_jax.convert.finetuned import FineTunedModel
from vlbeit_jax.convert.formats.base import Export
from vlbeit_jax.convert.formats.onnx_run import (
    Graph,
    check_finetuned,
    check_run,
    graphs_of_finetuned,
    graphs_of_run,
)
from vlbeit_jax.convert.formats.torch_module import copy_text_tokenizer
from vlbeit_jax.convert.source import Run

SHORTEST = 3  # CLS, a word piece, SEP.
PIXELS = "{name} = numpy.zeros((1, 3, {side}, {side}), numpy.uint8)  # RGB, 0 to 255."
PIECES = (
    "pieces = numpy.array([[{CLS}, 17, 25, {SEP}]])  "
    "# CLS {CLS}, word pieces, SEP {SEP}, padded with {pad}."
)
# An import has the word pieces of another program, whose numbers no file of it says.
UNKNOWN_PIECES = """# CLS and SEP have the numbers of the text tokenizer of the imported model.
CLS, SEP = ..., ...
pieces = numpy.array([[CLS, 17, 25, SEP]])  # CLS, word pieces, SEP, padded with {pad}."""


def write_run(run: Run, folder: pathlib.Path) -> None:
    """Writes the graphs of a pretrained model, its configuration, text tokenizer and card."""
    module, model = torch_module.as_module(run)
    config = torch_module.config_of(run) | {"visual_tokenizer": None}
    _write(module, model, graphs_of_run(), config, of_run(run), folder)
    copy_text_tokenizer(run.text_tokenizer, folder)


def write_finetuned(source: FineTunedModel, folder: pathlib.Path) -> None:
    """Writes the graphs of a fine-tuned model, its configuration, text tokenizer and card."""
    module, model = torch_finetuned.as_module(source)
    config, subject = torch_finetuned.config_of(source), of_finetuned(source)
    _write(module, model, graphs_of_finetuned(source), config, subject, folder)
    copy_text_tokenizer(torch_finetuned.text_tokenizer_of(source), folder)


def _write(
    module: Any,
    model: Any,
    graphs: Iterable[Graph],
    config: dict[str, Any],
    subject: Subject,
    folder: pathlib.Path,
) -> None:
    sizes = config["model"]
    for graph in graphs:
        told = export_graph(module, model, graph, sizes, folder)
        config.setdefault("graphs", {})[graph.file] = told
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    write_card(subject, _code(config), folder)


def _code(config: Mapping[str, Any]) -> str:
    """Returns Python that runs every graph."""
    sizes, graphs, specials = config["model"], config["graphs"], config["specials"]
    inputs = {
        **{
            name: PIXELS.format(name=name, side=sizes["image_size"])
            for name in ("pixels", "second_pixels")
        },
        "pieces": (PIECES if specials else UNKNOWN_PIECES).format(
            **(specials or {}), pad=sizes["pad"]
        ),
    }
    lines = ["import numpy, onnxruntime", ""]
    for name in {name: None for told in graphs.values() for name in told["inputs"]}:
        lines.append(inputs[name])
    for file, told in graphs.items():
        feeds = ", ".join(f'"{name}": {name}' for name in told["inputs"])
        outputs = f"[{', '.join(told['outputs'])}]"  # onnxruntime returns a list.
        lines += ["", f'session = onnxruntime.InferenceSession("{file}")']
        lines.append(f"{outputs} = session.run(None, {{{feeds}}})")
    return "\n".join(lines)


def _traced(module: Any, model: Any, graph: Graph) -> Any:
    """Returns a module that takes a graph's inputs, and returns its outputs by name."""
    import torch

    class Traced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(
            self, pixels: Any = None, second_pixels: Any = None, pieces: Any = None
        ) -> dict[str, Any]:
            given = {} if pixels is None else {"image": module.normalise(pixels)}
            if second_pixels is not None:
                given["second_image"] = module.normalise(second_pixels)
            given |= {} if pieces is None else {"text": pieces}
            result = getattr(self.model, graph.method)(**given)
            return {graph.output: result} if graph.output else dict(result)

    return Traced().eval()


def export_graph(
    module: Any, model: Any, graph: Graph, sizes: Mapping[str, Any], folder: pathlib.Path
) -> dict[str, Any]:
    """Writes a graph; returns the names, types and shapes of its inputs and outputs.

    Args:
      module: vlbeit_torch.py or vlbeit_finetuned.py.
      model: a model of that module.
      graph: what to write.
      sizes: "model" of config.json.
      folder: gets the file.
    """
    import torch

    traced = _traced(module, model, graph)
    side, longest = sizes["image_size"], sizes["text_positions"]
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", min=SHORTEST, max=longest)
    # Two rows, because a size of 1 would be taken for a constant.
    examples = {
        "image": ("pixels", torch.zeros(2, 3, side, side, dtype=torch.uint8), {0: rows}),
        "second_image": (
            "second_pixels",
            torch.zeros(2, 3, side, side, dtype=torch.uint8),
            {0: rows},
        ),
        "text": (
            "pieces",
            torch.ones(2, max(SHORTEST, longest // 2), dtype=torch.long),
            {0: rows, 1: length},
        ),
    }
    used = [examples[name] for name in graph.inputs]
    inputs = {name: value for name, value, _ in used}
    with torch.no_grad(), _quiet():
        outputs = traced(**inputs)
        program = torch.onnx.export(
            traced,
            (),
            kwargs=inputs,
            dynamic_shapes={name: shape for name, _, shape in used},
            input_names=list(inputs),
            output_names=list(outputs),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(folder / graph.file)
    return {
        "inputs": {value.name: _type_and_shape(value) for value in program.model.graph.inputs},
        "outputs": {value.name: _type_and_shape(value) for value in program.model.graph.outputs},
    }


def _type_and_shape(value: Any) -> list[Any]:
    return [
        str(value.dtype),
        *(size if isinstance(size, int) else str(size) for size in value.shape),
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what the exporter says about itself, and about packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category, module=r"torch\.|copyreg|onnx")
            yield
    finally:
        logger.setLevel(level)


NEEDS = "onnx and onnxscript to write it (pip install 'vlbeit-jax[onnx]'), any runtime to run it"
PACKAGES = ("torch", "onnx", "onnxscript")
EXPORT = Export(
    takes="pretraining runs",
    exact="states of images, texts and pairs: all patches and word pieces, CLS, and means",
    needs=NEEDS,
    drops="heads of masked prediction, visual tokenizer",
    peers=("onnxruntime",),
    require=None,
    write=write_run,
    check=check_run,
    packages=PACKAGES,
)
FINE_TUNED_EXPORT = Export(
    takes="every fine-tuned run",
    exact="every output: logits, vectors, matching",
    needs=NEEDS,
    drops="nothing",
    peers=("onnxruntime",),
    require=None,
    write=write_finetuned,
    check=check_finetuned,
    flags=("verify", "weights"),
    packages=PACKAGES,
)
