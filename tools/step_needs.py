"""What a train step needs of a device, as a function of its rows.

The memory formula of ``vlbeit_jax.plan.memory`` is linear in the rows of a device. So one trace of
the step's networks answers for every batch size, number of microbatches and choice of remat.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan import memory
from vlbeit_jax.plan.networks import Networks, networks_of
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.tasks.new_run import parse_run
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.state import declarations

REMAT = ("none", "dots", "full")
# The formula is right within 20%; the allocator needs the rest.
SPARE = 0.85
LARGEST = 4096


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes on one device, and operations.

    A row is one row of every stream of the step: at pretraining an image, a text and a pair.

    Attributes:
      parameters: numbers that are trained, over all devices.
      fixed_bytes: whatever the batch: parameters, moments, gradients, copies of parameters in the
        type of products, frozen networks, the program.
      sum_bytes: gradients of former microbatches, beside those of the present one; 0 if a step of
        one microbatch has them too, because it sums over streams.
      input_bytes: of a row as it arrives.
      activation_bytes: of a row, by ``remat``.
      model_flops: of a row, forward and backward: the numerator of MFU.
      frozen_flops: of a row in the networks that are not trained.
    """

    parameters: int
    fixed_bytes: int
    sum_bytes: int
    input_bytes: int
    activation_bytes: Mapping[str, int]
    model_flops: float
    frozen_flops: float

    def total(self, rows: int, accumulate: int = 1, remat: str = "none") -> int:
        """Bytes of a step with ``rows`` of every stream on the device, in microbatches."""
        at_once = -(-rows // accumulate)
        fixed = self.fixed_bytes + (self.sum_bytes if accumulate > 1 else 0)
        return fixed + rows * self.input_bytes + at_once * self.activation_bytes[remat]

    def largest(self, gibibytes: float, remat: str = "none") -> int:
        """The largest power of two of rows that fits at once; 0: not even one row does."""
        room, rows = SPARE * gibibytes * 2**30, LARGEST
        while rows and self.total(rows, remat=remat) > room:
            rows //= 2
        return rows


def needs_of(config: Config, devices: Sequence[Any]) -> Needs:
    """Traces a configuration's step; nothing that it names is opened.

    Args:
      config: of the run. Its mesh must fit the devices, and all its streams have to be in every
        step; its batch sizes do not matter.
      devices: that the step is for; simulated ones will do.
    """
    mesh = make_mesh(config.mesh, devices)
    rows, tensor = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"]
    # Two microbatches of one row a device: gradients of one stand beside the sum of the others.
    config = with_rows(config, 2 * rows)
    _, _, state, frozen, batches = abstract_step(config, mesh)
    task = config.task
    objectives = {name: stream.objective for name, stream in task.streams().items()}
    info = declarations(task.init).info
    # on_tpu: cuDNN's kernel, too, computes the attention weights again in the backward pass. And on
    # both devices a step holds the activations of one stream at a time (``training.step``). Both
    # kernels need bfloat16.
    fused = task.model.matmul != "float32"
    needed = memory.estimate(
        objectives, state, info, frozen, batches, 2, rows, tensor, on_tpu=fused
    )
    networks = [
        networks_of(objectives[name], state.params, frozen, batch)
        for name, batch in batches.items()
    ]
    # On several devices, streams of one microbatch add to the same gradients.
    sums = 0 if rows == 1 and len(networks) > 1 else gradient_bytes(state.params, info, tensor)
    own = getattr(task.model, "remat", None)
    activations = {
        remat: _activation_bytes(networks, remat, rows > 1, tensor, fused)
        for remat in (REMAT if own else ("none",))
    }
    flops = step_flops(config)
    return Needs(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        fixed_bytes=needed.total - needed.batch - sums - activations[own or "none"],
        sum_bytes=sums,
        input_bytes=needed.batch // 2,
        activation_bytes=activations,
        model_flops=flops.model / (2 * rows),
        frozen_flops=flops.frozen / (2 * rows),
    )


def gradient_bytes(params: Any, info: Any, tensor: int) -> int:
    """Bytes of one set of gradients on a device; the trees are shapes and a ``ParamInfo`` each."""
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(info), strict=True)
    return 4 * sum(
        memory.shard_size(leaf) if facts.vocab_parallel else leaf.size // tensor
        for leaf, facts in leaves
    )


def _activation_bytes(
    networks: Sequence[Networks], remat: str, together: bool, tensor: int, fused: bool
) -> int:
    """What the backward pass of one row needs; ``together``: streams overlap, as on several."""
    found = []
    for each in networks:
        stacks = [
            # An example may be several rows of a Transformer.
            stack._replace(
                config=dataclasses.replace(stack.config, remat=remat),
                rows=stack.rows // each.rows,
            )
            for stack in each.stacks
        ]
        one = each._replace(stacks=tuple(stacks), rows=1)
        found.append(memory.activation_bytes(one, 1, tensor, fused))
    return sum(found) if together else max(found)


def with_rows(config: Config, rows: int) -> Config:
    """Returns a configuration with so many rows of each stream, over all devices."""
    task = config.task
    streams = {
        name: dataclasses.replace(getattr(task, name), batch_size=rows) for name in task.streams()
    }
    return dataclasses.replace(config, task=dataclasses.replace(task, **streams))


def load(name: str, fsdp: int = 1, matmul: str = "bfloat16") -> Config:
    """Reads a configuration file; sets the mesh, the type of products, and joint steps.

    Args:
      name: FILE or FILE:SIZE.
      fsdp: devices, all along this axis.
      matmul: type of products of all networks.

    Raises:
      UsageError: there is no such file, it has no such size, or it leaves a number open that
        follows from data.
    """
    path, _, size = name.partition(":")
    if not path.endswith(".py") or not pathlib.Path(path).is_file():
        raise UsageError(f"{path}: there is no such configuration file")
    spec = importlib.util.spec_from_file_location("config", pathlib.Path(path))
    assert spec is not None and spec.loader is not None, path
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = (module.get_config(size) if size else module.get_config()).to_dict()
    task = values["task"]
    if task["kind"] == "pretrain":
        task["schedule"] = "image+text+pair"
        task["tokenizer_model"]["matmul"] = matmul
    task["model"]["matmul"] = matmul
    values["mesh"] = {"data": 1, "fsdp": fsdp, "tensor": 1}
    return parse_run(values, to_train=False)
