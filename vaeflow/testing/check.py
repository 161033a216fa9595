"""The checks of the conformance kit by name, and `check_bijector`, which runs all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import distrax
import jax
from jaxtyping import Array, ArrayLike

from vaeflow.testing import gradients, shape_errors, transformations, values
from vaeflow.testing.case import EDGES, Case

CHECKS: Mapping[str, Callable[[Case], None]] = MappingProxyType(
    {
        "log-det shape": values.check_log_det_shape,
        "round trip": values.check_round_trip,
        "log-det": values.check_log_det,
        "log-det symmetry": values.check_log_det_symmetry,
        "low precision": values.check_low_precision,
        "jit": transformations.check_jit,
        "pytree": transformations.check_pytree,
        "batch axes": transformations.check_batch_axes,
        "vmap": transformations.check_vmap,
        "scan": transformations.check_scan,
        "range": values.check_range,
        "edges": gradients.check_edges,
        "parameter gradients": gradients.check_parameter_gradients,
        "finite differences": gradients.check_finite_differences,
        "differentiation": gradients.check_differentiation,
        "context": gradients.check_context,
        "wrong shapes": shape_errors.check_wrong_shapes,
    }
)
"""Every check by name, to parametrise tests over; each takes a `Case` and raises AssertionError."""


def run_check(name: str, case: Case) -> None:
    """Runs one check.

    Args:
      name: A name in `CHECKS`.
      case: The bijector under test.

    Raises:
      AssertionError: If the bijector fails the check, or raises an error on the way. The message
        begins with the name of the check.
      ValueError: If there is no such check.
    """
    if name not in CHECKS:
        raise ValueError(f"name must be one of {list(CHECKS)}, got {name!r}")
    try:
        CHECKS[name](case)
    except AssertionError as error:
        raise AssertionError(f"check_bijector: {name}: {error}") from error
    except Exception as error:
        raise AssertionError(
            f"check_bijector: {name}: the bijector raised {type(error).__name__}: {error}"
        ) from error


def check_bijector(
    make: Callable[..., distrax.Bijector],
    event_shape: Sequence[int],
    *,
    context_shape: Sequence[int] | None = None,
    inputs: Callable[[Array, tuple[int, ...]], Array] = jax.random.normal,
    edges: Sequence[ArrayLike] = EDGES,
    inverse_edges: Sequence[ArrayLike] = EDGES,
    constant: Sequence[str] = (),
    tolerance: float = 1e-4,
) -> None:
    """Runs every check of the kit on a bijector.

    The checks: the round trip both ways; log-determinants against the Jacobian by automatic
    differentiation, sign included, their antisymmetry, their shape, and their precision for
    bfloat16 input; agreement between compiled and uncompiled calls, between batches of any number
    of axes and single examples, under `jax.vmap` and in `jax.lax.scan`; that new parameters don't
    retrace; finite values and gradients at the edges, and no density outside the range of forward;
    gradients to every leaf, also against finite differences; forward mode and second derivatives;
    that the context matters; that wrong shapes raise errors.

    It takes any `distrax.Bijector`, whose parameters are its floating-point leaves as a pytree::

        def make(key, context):
            return MyCoupling(weight=0.1 * jax.random.normal(key, (3, 4)), context=context)

        check_bijector(make, (4,), context_shape=(3,))

    Args:
      make: ``make(key)``, or ``make(key, context)`` with a context; returns the bijector. Another
        key has to give other parameters of the same shapes. Draw them away from special values: a
        layer that starts at zero hides what comes before it.
      event_shape: Shape of one event that enters forward.
      context_shape: Shape of one context, or None. `make` gets contexts of shape
        ``[*batch, *context_shape]``, whose batch axes broadcast against those of the input.
      inputs: ``inputs(key, shape)`` samples inputs of forward from the inside of its domain.
      edges: Inputs of forward, numbers or arrays that broadcast to an event, at which values and
        gradients must be finite: give the edges of the domain, and points beyond it.
      inverse_edges: The same for the inverse.
      constant: Names of floating-point leaves that may have no gradient, as the messages give
        them, or patterns of names such as ``"*.sign"``.
      tolerance: Absolute and relative tolerance of comparisons between values.

    Raises:
      AssertionError: If any check fails. The message names each failed check and says what was
        expected, what was got, and on which input.
    """
    case = Case(
        make,
        tuple(event_shape),
        context_shape=None if context_shape is None else tuple(context_shape),
        inputs=inputs,
        edges=edges,
        inverse_edges=inverse_edges,
        constant=constant,
        tolerance=tolerance,
    )
    failures = []
    for name in CHECKS:
        try:
            run_check(name, case)
        except AssertionError as error:
            failures.append(error)
    if failures:
        raise AssertionError("\n".join(str(failure) for failure in failures)) from failures[0]
