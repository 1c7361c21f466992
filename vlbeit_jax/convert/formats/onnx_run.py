"""Which ONNX files there are, and what onnxruntime computes from them compared with JAX."""

import pathlib
from typing import NamedTuple

import numpy as np

from vlbeit_jax.convert import verify
from vlbeit_jax.convert.finetuned import FineTunedModel, jax_outputs, random_inputs
from vlbeit_jax.convert.source import Run


class Graph(NamedTuple):
    """What one file holds.

    Attributes:
      file: its name.
      inputs: of "image", "second_image" and "text", which the graph calls pixels, second_pixels
        and pieces.
      method: of the PyTorch module.
      output: name of the output; empty: the method returns outputs by name.
    """

    file: str
    inputs: tuple[str, ...]
    method: str = "__call__"
    output: str = ""


def graphs_of_run() -> list[Graph]:
    """Returns the graphs of a pretrained model: states of images, of texts and of pairs."""
    kinds = {"image": ("image",), "text": ("text",), "pair": ("image", "text")}
    return [Graph(f"{name}.onnx", inputs) for name, inputs in kinds.items()]


def graphs_of_finetuned(source: FineTunedModel) -> list[Graph]:
    """Returns a graph for each output of a fine-tuned model."""
    outputs = source.head.outputs(source.network).items()
    return [Graph(f"{name}.onnx", each.inputs, each.method, name) for name, each in outputs]


def run_graph(folder: pathlib.Path, file: str, batch: verify.Batch) -> dict[str, np.ndarray]:
    """Runs a graph on pixels Uint8[B, side, side, 3], once or twice, and word pieces Int[B, T]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    feeds = {}
    for name, pixels in (("image", "pixels"), ("second_image", "second_pixels")):
        if name in batch:
            feeds[pixels] = batch[name].transpose(0, 3, 1, 2)
    if "text" in batch:
        feeds["pieces"] = batch["text"].astype(np.int64)
    names = [output.name for output in session.get_outputs()]
    values = map(np.asarray, session.run(None, feeds))
    return dict(zip(names, values, strict=True))


def check_run(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Compares the graphs with JAX, also on a single row and a shorter text."""
    pair = verify.random_batches(run.model)["pair"]
    ends = (pair["text"] != run.model.pad).sum(axis=1)
    single = {"image": pair["image"][:1], "text": pair["text"][:1, : ends[0]]}
    batches = {
        "image": {"image": pair["image"]},
        "text": {"text": pair["text"]},
        "pair": {name: pair[name] for name in ("image", "text")},
        "pair_of_one_row": single,
    }

    def forward(name: str, batch: verify.Batch) -> dict[str, np.ndarray]:
        return run_graph(folder, f"{name.split('_')[0]}.onnx", batch)

    return verify.compare(run, _peer(), forward, batches, means=True)


def check_finetuned(source: FineTunedModel, folder: pathlib.Path) -> verify.Differences:
    """Compares the graph of every output with JAX."""
    batch = random_inputs(source.model)
    differences = verify.Differences(_peer(), source.model.pad)
    expected = jax_outputs(source, batch)
    for graph in graphs_of_finetuned(source):
        outputs = run_graph(folder, graph.file, {name: batch[name] for name in graph.inputs})
        actual = outputs[graph.output]
        if source.head.outputs(source.network)[graph.output].is_map:
            actual = np.moveaxis(actual, 1, -1)
        differences.add(graph.output, actual, expected[graph.output])
    return differences


def _peer() -> str:
    import onnxruntime

    return f"ONNX graphs in onnxruntime {onnxruntime.__version__}"
