"""Each check of the kit catches what it is there for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vaeflow.testing import CHECKS, Case, check_bijector, run_check


class Sound(distrax.Bijector):
    """y = x exp(s) + t, s = log_scale + context @ weight: nothing is wrong with it.

    Faulty bijectors override one method each.
    """

    def __init__(self, shift: Array, log_scale: Array, weight: Array, context: Array):
        super().__init__(1)
        self.shift = shift
        self.log_scale = log_scale
        self.weight = weight
        self.context = context

    def scale(self, x: Array) -> Array:
        """The logarithm of the scale, broadcast to x."""
        if x.shape[-1:] != self.shift.shape:
            raise ValueError(f"expected events of shape {self.shift.shape}, got {x.shape}")
        log_scale = self.log_scale + self.context @ self.weight
        return jnp.broadcast_to(log_scale, x.shape)

    def log_det(self, log_scale: Array) -> Array:
        """The log-determinant of forward."""
        return jnp.sum(log_scale, axis=-1)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Scales and shifts."""
        if x.ndim < 1:
            raise ValueError(f"expected events of 1 axis, got {x.shape}")
        log_scale = self.scale(x)
        return x * jnp.exp(log_scale) + self.shift, self.log_det(log_scale)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Shifts and scales back."""
        if y.ndim < 1:
            raise ValueError(f"expected events of 1 axis, got {y.shape}")
        log_scale = self.scale(y)
        return (y - self.shift) * jnp.exp(-log_scale), -self.log_det(log_scale)


FAULTY: dict[str, tuple[type[Sound], set[str]]] = {}


def caught_by(*checks: str) -> Callable[[type[Sound]], type[Sound]]:
    """Registers a faulty bijector with the checks that have to fail on it, and no others."""

    def register(faulty: type[Sound]) -> type[Sound]:
        FAULTY[faulty.__name__] = (faulty, set(checks))
        return faulty

    return register


@caught_by("log-det")
class WrongSign(Sound):
    """Both log-determinants are those of the other direction."""

    def log_det(self, log_scale: Array) -> Array:
        return -super().log_det(log_scale)


@caught_by("log-det", "log-det symmetry")
class WrongSignOneWay(Sound):
    """The log-determinant of the inverse is that of forward."""

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x, log_det = super().inverse_and_log_det(y)
        return x, -log_det


@caught_by("log-det")
class MeanLogDet(Sound):
    """The log-determinant is averaged over the event instead of summed."""

    def log_det(self, log_scale: Array) -> Array:
        return jnp.mean(log_scale, axis=-1)


@caught_by("log-det shape", "log-det", "batch axes")
class ScalarLogDet(Sound):
    """One log-determinant for the whole batch: it broadcasts silently in a sum."""

    def log_det(self, log_scale: Array) -> Array:
        return jnp.mean(super().log_det(log_scale))


@caught_by("round trip")
class RoughInverse(Sound):
    """The inverse is off by a thousandth."""

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        x, log_det = super().inverse_and_log_det(y)
        return x + 1e-3, log_det


@caught_by("low precision")
class NarrowLogDet(Sound):
    """The log-determinant takes the type of the input."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return y, log_det.astype(x.dtype)


@caught_by("low precision")
class RoundedLogDet(Sound):
    """The log-determinant is float32, but was added up in the type of the input."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return y, log_det.astype(x.dtype).astype(jnp.float32)


@caught_by("jit")
class DecidedByValue(Sound):
    """A Python branch on values: cut short by compilation, which it asks about."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return (y, log_det) if isinstance(x, jax.core.Tracer) else (y + 1.0, log_det)


@caught_by("pytree", "vmap", "scan")
class FreshStatic(Sound):
    """A static attribute that never equals that of another bijector."""

    def __init__(self, *leaves: Array):
        super().__init__(*leaves)
        self.activation = lambda x: x


@caught_by("pytree", "scan")
class RemembersCalls(Sound):
    """A call leaves something behind in the bijector."""

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        self.last_shape = y.shape
        return super().inverse_and_log_det(y)


@caught_by("vmap")
class CallsPython(Sound):
    """A callback that can't be mapped."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        zeros = jax.pure_callback(np.zeros_like, y, jax.lax.stop_gradient(y))
        return y + zeros, log_det


@caught_by("batch axes", "log-det")
class WrongAxis(Sound):
    """Reverses the first axis, which is that of the event only where there is no batch."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return jnp.flip(y, axis=0), log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return super().inverse_and_log_det(jnp.flip(y, axis=0) if y.ndim else y)


@caught_by("batch axes")
class MixedExamples(Sound):
    """Subtracts half the mean of the batch from the log scale."""

    def scale(self, x: Array) -> Array:
        log_scale = super().scale(x)
        return log_scale - jnp.mean(log_scale, axis=0) / 2 if x.ndim > 1 else log_scale


@caught_by("edges")
class UnguardedWhere(Sound):
    """The branch that isn't taken has an infinite slope, which zero doesn't cancel."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return y + 0.0 * jnp.where(x == 0.0, 0.0, jnp.log(jnp.abs(x))), log_det


@caught_by("edges", "range")
class Overflow(Sound):
    """Finite near zero, infinite far from it."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_det = super().forward_and_log_det(x)
        return y + 0.0 * jnp.exp(jnp.abs(x)), log_det


@caught_by("range")
class ClippedInverse(Sound):
    """Far values are clipped by the inverse, and have the density of the clipped ones."""

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return super().inverse_and_log_det(jnp.clip(y, -50.0, 50.0))


@jax.custom_vjp
def backward_only(x: Array) -> Array:
    return x


backward_only.defvjp(lambda x: (x, None), lambda _, dx: (dx,))


@caught_by("differentiation")
class BackwardOnly(Sound):
    """No derivatives in forward mode, and no word about it."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return super().forward_and_log_det(backward_only(x))


@jax.custom_jvp
def _curved(x: Array) -> Array:
    return x


@_curved.defjvp
def _curved_jvp(primals, tangents):
    (x,), (change,) = primals, tangents
    return x, change * (1.0 + x - jax.lax.stop_gradient(x))


@caught_by("differentiation")
class WrongSecondDerivative(Sound):
    """A derivative with the right value and a wrong derivative."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        return super().forward_and_log_det(_curved(x))


@caught_by("parameter gradients")
class UnusedLeaf(Sound):
    """A leaf that nothing depends on."""

    def __init__(self, *leaves: Array):
        super().__init__(*leaves)
        self.unused = jnp.ones(2)


@caught_by("parameter gradients", "finite differences")
class StoppedGradient(Sound):
    """A parameter that no gradient reaches."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        frozen = self._frozen()
        return Sound.forward_and_log_det(frozen, x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        return Sound.inverse_and_log_det(self._frozen(), y)

    def _frozen(self) -> Sound:
        return Sound(jax.lax.stop_gradient(self.shift), self.log_scale, self.weight, self.context)


@jax.custom_vjp
def _wrongly_differentiated(x: Array) -> Array:
    return x


_wrongly_differentiated.defvjp(lambda x: (x, None), lambda _, cotangent: (1.1 * cotangent,))


@caught_by("finite differences")
class WrongBackwardPass(Sound):
    """A backward pass of its own that is a tenth too large for one parameter."""

    def scale(self, x: Array) -> Array:
        return super().scale(x) - self.log_scale + _wrongly_differentiated(self.log_scale)


@caught_by("context", "parameter gradients")
class IgnoredContext(Sound):
    """The context changes nothing."""

    def scale(self, x: Array) -> Array:
        return jnp.broadcast_to(self.log_scale + 0.0 * super().scale(x), x.shape)


@caught_by("wrong shapes")
class SilentBroadcast(Sound):
    """An event of one dimension broadcasts to all of them."""

    def scale(self, x: Array) -> Array:
        log_scale = self.log_scale + self.context @ self.weight
        return jnp.broadcast_to(log_scale, jnp.broadcast_shapes(log_scale.shape, x.shape))


@caught_by("wrong shapes")
class SilentMessage(Sound):
    """Raises for a wrong shape with a message that quotes no shapes."""

    def scale(self, x: Array) -> Array:
        if x.shape[-1:] != self.shift.shape:
            raise ValueError("wrong shape")
        return super().scale(x)


EVENT, CONTEXT = (4,), (2,)


def maker(kind: type[Sound]) -> Callable[[Array, Array], Sound]:
    """Makes bijectors of a class with random parameters."""

    def make(key: Array, context: Array) -> Sound:
        keys = jax.random.split(key, 3)
        shift, log_scale = (0.5 * jax.random.normal(key, EVENT) for key in keys[:2])
        return kind(shift, log_scale, 0.5 * jax.random.normal(keys[2], CONTEXT + EVENT), context)

    return make


def failures(case: Case, checks: Iterable[str] = CHECKS) -> dict[str, str]:
    """The messages of the checks that fail."""
    messages = {}
    for name in checks:
        try:
            run_check(name, case)
        except AssertionError as error:
            messages[name] = str(error)
    return messages


def test_sound_bijector_passes() -> None:
    """All checks pass on a bijector without faults."""
    check_bijector(maker(Sound), EVENT, context_shape=CONTEXT)


@pytest.mark.parametrize("name", FAULTY)
def test_fault_is_caught(name: str) -> None:
    """Exactly the checks that should fail do, each under its name."""
    faulty, expected = FAULTY[name]
    # The check of large programs is left out where it shouldn't fail, for the time that it takes.
    checks = [check for check in CHECKS if check != "differentiation" or check in expected]
    messages = failures(Case(maker(faulty), EVENT, context_shape=CONTEXT), checks)
    assert set(messages) == expected, messages
    for check, message in messages.items():
        assert message.startswith(f"check_bijector: {check}: ")


def test_every_check_catches_something() -> None:
    """No check is without a fault that shows it failing."""
    assert set().union(*(expected for _, expected in FAULTY.values())) == set(CHECKS)


def test_wrong_sign_is_named() -> None:
    """The message says that the sign is wrong, what was expected and what was got."""
    with pytest.raises(AssertionError, match=r"^check_bijector: log-det: forward .* sign is wrong"):
        check_bijector(maker(WrongSign), EVENT, context_shape=CONTEXT)


def test_all_failures_are_reported() -> None:
    """One run names every failed check."""
    with pytest.raises(AssertionError) as caught:
        check_bijector(maker(WrongSignOneWay), EVENT, context_shape=CONTEXT)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == [
        " log-det",
        " log-det symmetry",
    ]


def test_constant_leaves_are_excused() -> None:
    """A leaf listed as constant may lack a gradient; a name that fits no leaf raises."""
    case = Case(maker(UnusedLeaf), EVENT, context_shape=CONTEXT, constant=("unu*",))
    assert failures(case) == {}
    unknown = Case(maker(Sound), EVENT, context_shape=CONTEXT, constant=("absent",))
    with pytest.raises(AssertionError, match="absent"):
        run_check("parameter gradients", unknown)


def test_bounded_domain() -> None:
    """A bijector on the unit interval is fed from its domain, and fails beyond it."""

    def make(key: Array) -> distrax.Bijector:
        return distrax.Inverse(distrax.Sigmoid())

    inside = {"inputs": jax.random.uniform, "inverse_edges": (0.0, 10.0, -10.0)}
    case = Case(make, (), edges=(1e-6, 0.5, 0.99), **inside)
    # distrax's own log-determinants take the type of their input.
    assert set(failures(case)) == {"low precision"}
    with pytest.raises(AssertionError, match="forward at an edge: expected finite values"):
        run_check("edges", Case(make, (), edges=(0.5, 2.0), **inside))


def test_unknown_check_raises() -> None:
    """A check that doesn't exist is a ValueError that lists those that do."""
    with pytest.raises(ValueError, match="round trip"):
        run_check("roundtrip", Case(maker(Sound), EVENT, context_shape=CONTEXT))
