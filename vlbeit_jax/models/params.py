"""Parameters declare, at creation, what the rest of the program must know about them.

``declare`` wraps an initializer so that its value comes boxed with a ``ParamInfo``. Boxes exist
between ``init`` and ``read_info`` only: unbox the tree (``flax.linen.unbox``) and keep the
information in a second tree of the same structure.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from vlbeit_jax.shapes import Tree

FLOAT32 = jnp.dtype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class ParamInfo:
    """Facts about one parameter.

    Attributes:
      axes: a logical axis, or None, per dimension (``training.mesh`` maps them to mesh axes).
      decay: whether weight decay applies.
      dtype: the type it is used in. It is gathered in it, and kept in it when frozen.
      grad_dtype: the type in which its gradient is summed over devices.
      vocab_parallel: every device uses its own part of the vocabulary, which is never gathered.
    """

    axes: tuple[str | None, ...] = ()
    decay: bool = False
    dtype: jnp.dtype = FLOAT32
    grad_dtype: jnp.dtype = FLOAT32
    vocab_parallel: bool = False


# Flax's own box, ``Partitioned``, adds a sharding constraint when it is unboxed. This one does not:
# a parameter's layout is decided once, in ``training.state``.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Declared(meta.AxisMetadata):
    """A parameter in a box with its information."""

    value: Any
    info: ParamInfo = dataclasses.field(metadata={"static": True})

    def unbox(self) -> Any:
        """Returns the parameter."""
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        """Returns the same box around another value."""
        return Declared(val, self.info)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """Inserts an axis that ``nn.vmap`` or ``nn.scan`` stacks parameters along."""
        axes = list(self.info.axes)
        axes.insert(index, params.get(meta.PARTITION_NAME))
        return self._with_axes(axes)

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """Removes such an axis."""
        axes = list(self.info.axes)
        axes.pop(index)
        return self._with_axes(axes)

    def _with_axes(self, axes: list[str | None]) -> "Declared":
        return Declared(self.value, dataclasses.replace(self.info, axes=tuple(axes)))


def declare(
    init: Callable[..., Any],
    *axes: str | None,
    decay: bool = False,
    dtype: Any = FLOAT32,
    grad_dtype: Any = None,
    vocab_parallel: bool = False,
) -> Callable[..., Any]:
    """Returns an initializer whose value is boxed with its ``ParamInfo``; ``param`` unboxes it.

    The defaults are safe: the parameter is used in float32 and does not decay.

        self.param("kernel", declare(init, "embed", "ffn", decay=True, dtype=self.dtype), shape)

    Args:
      init: ``(key, shape) -> array``.
      *axes: a logical axis, or None, per dimension.
      decay: see ``ParamInfo``, as the next three.
      dtype: it, by default float32.
      grad_dtype: by default ``dtype``.
      vocab_parallel: see there.

    Raises:
      ValueError: when called, if the shape has another number of dimensions than ``axes``.
    """
    # ``jnp.bfloat16 == jnp.dtype("bfloat16")``, but the two hash differently: keep one form.
    info = ParamInfo(axes, decay, jnp.dtype(dtype), jnp.dtype(grad_dtype or dtype), vocab_parallel)

    return functools.partial(_boxed, init, info)


def _boxed(init: Callable[..., Any], info: ParamInfo, key: Any, shape: Any, *rest: Any) -> Declared:
    if len(shape) != len(info.axes):
        raise ValueError(f"{len(info.axes)} axes {info.axes} declared for shape {tuple(shape)}")
    return Declared(init(key, shape, *rest), info)


def read_info(boxed: Tree) -> Tree:
    """Returns a ``ParamInfo`` per parameter, in the structure of the unboxed tree.

    A parameter without a box gets the defaults, with no axis for any dimension.
    """

    def info(leaf: Any) -> ParamInfo:
        if isinstance(leaf, Declared):
            return leaf.info
        return ParamInfo(axes=(None,) * leaf.ndim)

    return jax.tree.map(info, boxed, is_leaf=lambda leaf: isinstance(leaf, Declared))


def cast_params(params: Tree, info: Tree) -> Tree:
    """Returns the parameters in the types they are used in."""
    return jax.tree.map(lambda leaf, declared: leaf.astype(declared.dtype), params, info)


_DIFFERENTIATED: ContextVar[frozenset[str] | None] = ContextVar("differentiated", default=None)


@contextmanager
def differentiated_by(names: frozenset[str] | None) -> Iterator[None]:
    """While a loss is traced: these parameters are the ones that it is differentiated by.

    A loop over blocks must not mix blocks with and without such parameters, or all of them would
    take part in the backward pass (``models.multiway``).

    Args:
      names: parts of a path joined by "/"; None: all parameters.
    """
    token = _DIFFERENTIATED.set(names)
    try:
        yield
    finally:
        _DIFFERENTIATED.reset(token)


def differentiated_under(path: str) -> frozenset[str] | None:
    """Returns the names of ``differentiated_by`` below a path, without it; None: all."""
    names = _DIFFERENTIATED.get()
    if names is None:
        return None
    prefix = f"{path}/"
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))
