"""Floating-point operations of a loss and its gradient, counted by walking their jaxprs.

A multiplication and an addition are two operations. Matrix products and convolutions are counted;
elementwise operations are not. These are the model's operations, which the mathematics asks for:
whatever an implementation computes a second time (``jax.checkpoint``, the backward pass of an
attention kernel) does not count. MFU is these operations over time and peak.

The forward pass is counted in the jaxpr of the loss. The backward pass is what depends on the
loss's cotangent in the jaxpr of its vector-Jacobian product; no recomputation depends on it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from vlbeit_jax.shapes import Tree

# Primitives without multiplications of matrices: elementwise, reductions, data movement, random
# numbers, communication, casts. They are listed one by one, so that a primitive that JAX adds,
# or a kernel, is an error and not a silent zero.
UNCOUNTED = set(
    """
    abs acos acosh add add_any and argmax argmin asin asinh atan atan2 atanh cbrt ceil clamp clz
    complex conj cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt imag
    integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul mulhi ne neg
    nextafter not or population_count pow real reciprocal reduce_precision rem round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient
    sub tan tanh xor
    cumlogsumexp cummax cummin cumprod cumsum reduce reduce_and reduce_max reduce_min reduce_or
    reduce_prod reduce_sum reduce_window reduce_window_max reduce_window_min reduce_window_sum
    reduce_xor select_and_gather_add select_and_scatter select_and_scatter_add
    bitcast_convert_type broadcast_in_dim broadcast_to concatenate convert_element_type copy
    device_put dynamic_slice dynamic_update_slice empty empty2 gather iota iota_2x32_shape pad
    reshape rev scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub slice split
    squeeze stack tile transpose unstack zeros_like
    approx_top_k sort top_k
    philox2x32 philox4x32 random_bits random_clone random_fold_in random_gamma random_seed
    random_split random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32 threefry4x32
    all_gather all_gather_invariant all_gather_reduced all_to_all axis_index pbroadcast pmax pmin
    ppermute psum psum_invariant pvary reduce_scatter reduced_vary_cast_p unreduced_psum
    unreduced_reduce_scatter vary_unreduced_cast_p
    after_all create_token debug_callback debug_print layout_constraint name optimization_barrier
    reshard sharding_constraint with_memory_space_constraint
    """.split()
)
# Primitives that multiply matrices although results may have the shape of an operand.
LINEAR_ALGEBRA = frozenset(
    """
    cholesky cholesky_update custom_call eig eigh ffi_call fft householder_product lu pallas_call qr
    ragged_dot ragged_dot_general scaled_matmul schur svd triangular_solve tridiagonal
    tridiagonal_solve xla_pmap
    """.split()
)
# Primitives that run one jaxpr once, on their own operands.
CALLS = {"closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "remat2"}


class Flops(NamedTuple):
    """Operations of a loss and its gradient.

    Attributes:
      trained: that depend on the parameters, forward and backward.
      frozen: of networks that no gradient reaches, forward.
    """

    trained: int
    frozen: int


class StepFlops(NamedTuple):
    """What one optimizer step over the whole batch computes.

    Attributes:
      model: operations of the trained network, forward and backward: the numerator of MFU.
      frozen: operations of frozen networks, such as a visual tokenizer or a teacher.
      tokens: tokens that pass through the trained Transformer.
      samples: rows, which are images, texts and pairs.
    """

    model: float
    frozen: float
    tokens: float
    samples: float


def loss_flops(
    loss: Callable[..., Any], params: Tree, *others: Tree, part: Callable[..., Any] = lambda t: t
) -> Flops:
    """Counts the operations of a loss, and of its gradient with respect to ``part(params)``.

    Args:
      loss: from ``params`` and ``others`` to a scalar and further results, such as metrics.
      params: shapes of the network.
      others: shapes of all other arguments.
      part: from a tree like ``params`` to the part that is trained; all of the forward pass counts.

    Raises:
      NotImplementedError: the loss uses a primitive whose operations are not known, or a loop of
        unknown length around a matrix product.
    """
    # The forward pass is traced once. Its jaxpr is what is differentiated.
    jaxpr, (scalar, _) = jax.make_jaxpr(loss, return_shape=True)(params, *others)
    structure = jax.tree.structure(params)
    forward = _count(jaxpr, marked=structure.num_leaves)
    trained = jax.tree.leaves(part(structure.unflatten(range(structure.num_leaves))))

    def backward(cotangent: jax.Array, moved: list[Any], inputs: list[Any]) -> list[Any]:
        def loss_of(moved: list[Any]) -> jax.Array:
            given = dict(enumerate(inputs)) | dict(zip(trained, moved, strict=True))
            return jaxpr_as_fun(jaxpr)(*given.values())[0]

        return jax.vjp(loss_of, moved)[1](cotangent)

    moved = [jaxpr.in_avals[index] for index in trained]
    gradient = _count(jax.make_jaxpr(backward)(scalar, moved, list(jaxpr.in_avals)), marked=1)
    return Flops(forward.dependent + gradient.dependent, forward.independent)


class _Count(NamedTuple):
    """Operations by whether they depend on the marked inputs, and which outputs do."""

    dependent: int
    independent: int
    outputs: Sequence[bool]


def _count(jaxpr: ClosedJaxpr, marked: int) -> _Count:
    """Counts a function's operations, apart for those that depend on its first inputs."""
    # The compiler drops what nobody uses, such as a gradient with respect to pixels.
    used, kept = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))
    return _walk(used, [index < marked for index, keep in enumerate(kept) if keep])


def _walk(jaxpr: Jaxpr, marks: Sequence[bool]) -> _Count:
    """Counts a jaxpr whose inputs are marked where they depend on what is asked for."""
    dependent = {var for var, mark in zip(jaxpr.invars, marks, strict=True) if mark}
    of_dependent = of_others = 0
    for eqn in jaxpr.eqns:
        count = _equation(eqn, [_is_marked(var, dependent) for var in eqn.invars])
        of_dependent += count.dependent
        of_others += count.independent
        dependent |= {var for var, mark in zip(eqn.outvars, count.outputs, strict=True) if mark}
    return _Count(of_dependent, of_others, [_is_marked(var, dependent) for var in jaxpr.outvars])


def _is_marked(var: Any, dependent: set[Any]) -> bool:
    return not isinstance(var, Literal) and var in dependent


def _equation(eqn: Any, marks: list[bool]) -> _Count:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        return _walk(_open(params.get("call_jaxpr", params.get("jaxpr"))), marks)
    if name == "scan":
        return _loop(eqn, marks)
    if name == "while":
        return _unbounded_loop(eqn, marks)
    if name == "cond":
        return _branches(eqn, marks)
    if name == "shard_map":
        # Inside are the shapes of one device.
        devices = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
        return _times(devices, _walk(_open(params["jaxpr"]), marks))
    if name == "dot_general":
        flops = _product(eqn)
    elif name == "conv_general_dilated":
        flops = _convolution(eqn)
    elif name in UNCOUNTED or _is_elementwise(eqn):
        flops = 0
    else:
        raise NotImplementedError(
            f"operations of the primitive {name} are not known, so FLOPs and MFU would be wrong; "
            "give it a rule in vlbeit_jax/cost/flops.py, or list it there if it multiplies no "
            "matrices"
        )
    mark = any(marks)
    outputs = [mark] * len(eqn.outvars)
    return _Count(flops, 0, outputs) if mark else _Count(0, flops, outputs)


def _is_elementwise(eqn: Any) -> bool:
    """Whether an unknown primitive maps its operands element by element.

    Each release of JAX has new ones (0.12: ``one_minus_square``), and training must not end there.
    """
    if eqn.primitive.name in LINEAR_ALGEBRA or list(jaxprs_in_params(eqn.params)):
        return False
    operands = {var.aval.shape for var in eqn.invars if var.aval.shape}
    results = {var.aval.shape for var in eqn.outvars}
    return len(operands) == 1 and results == operands


def _product(eqn: Any) -> int:
    (summed, _), _ = eqn.params["dimension_numbers"]
    depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in summed)
    return 2 * eqn.outvars[0].aval.size * depth


def _convolution(eqn: Any) -> int:
    # The kernel's dimensions are outputs, inputs (of one group), and window.
    kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
    return 2 * eqn.outvars[0].aval.size * math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])


def _loop(eqn: Any, marks: list[bool]) -> _Count:
    """Counts ``lax.scan``: its inputs are constants, what is carried, and slices."""
    body = _open(eqn.params["jaxpr"])
    # The equation's own counts have other names in JAX 0.12. Shapes tell as well: a slice has one
    # dimension less inside the loop than outside.
    whole = sum(_same_rank(eqn.invars, body.invars))
    carried = sum(_same_rank(eqn.outvars, body.outvars))
    constants = whole - carried
    carry = slice(constants, constants + carried)
    while True:
        count = _walk(body, marks)
        # What one iteration hands on as dependent is dependent in the next.
        handed_on = [
            before or after
            for before, after in zip(marks[carry], count.outputs[:carried], strict=True)
        ]
        if handed_on == marks[carry]:
            return _times(eqn.params["length"], count)
        marks = [*marks[:constants], *handed_on, *marks[carry.stop :]]


def _same_rank(outside: Sequence[Any], inside: Sequence[Any]) -> list[bool]:
    return [one.aval.ndim == other.aval.ndim for one, other in zip(outside, inside, strict=True)]


def _unbounded_loop(eqn: Any, marks: list[bool]) -> _Count:
    bodies = (_open(eqn.params[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    for body in bodies:
        count = _walk(body, [True] * len(body.invars))
        if count.dependent or count.independent:
            raise NotImplementedError(
                "a while loop multiplies matrices, and its jaxpr does not say how often; use "
                "lax.scan, or lax.fori_loop with constant bounds"
            )
    return _Count(0, 0, [any(marks)] * len(eqn.outvars))


def _branches(eqn: Any, marks: list[bool]) -> _Count:
    """Counts the dearest branch of ``lax.cond``; its first input chooses."""
    counts = [_walk(_open(branch), marks[1:]) for branch in eqn.params["branches"]]
    dearest = max(counts, key=lambda count: count.dependent + count.independent)
    outputs = [marks[0] or any(each) for each in zip(*(c.outputs for c in counts), strict=True)]
    return dearest._replace(outputs=outputs)


def _times(times: int, count: _Count) -> _Count:
    return _Count(times * count.dependent, times * count.independent, count.outputs)


def _open(jaxpr: Any) -> Jaxpr:
    """Returns the jaxpr of a closed one, or else the one that is given."""
    return getattr(jaxpr, "jaxpr", jaxpr)
