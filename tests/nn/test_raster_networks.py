"""Networks over maps of codes: causality, and incremental against full evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.raster_networks import (
    CONTEXTS,
    KEY,
    NETWORKS,
    context_of,
    gated,
    initialised,
    maps_of,
    snail,
)

every = pytest.mark.parametrize(
    "make",
    [gated, pytest.param(snail, marks=pytest.mark.slow)],
    ids=NETWORKS,
)


def solved(network, variables, context, maps):
    """Logits of each position, from the loop that is given these maps code by code."""

    def entry(logits, code):
        return code, logits

    inputs = jnp.moveaxis(maps, 0, -1)
    logits = network.solve(variables, context, entry, inputs, maps.shape[0])
    return jnp.moveaxis(logits, 2, 0)


@functools.partial(jax.jit, static_argnums=0)
def applied(network, *given, **options):
    """A network that is compiled once for equal ones."""
    return network.apply(*given, **options)


@functools.partial(jax.jit, static_argnums=0)
def in_both_ways(network, variables, context, maps):
    """Logits of the map and those of each position."""
    full = network.apply(variables, maps, context)
    return full, solved(network, variables, context, maps)


def receptive_fields(network):
    """Whether the logits of each position, row after row, depend on the code of each."""
    variables, maps = initialised(network), maps_of(network, 6)
    size = maps[0].size

    @jax.jit
    def largest(variables, maps):
        vectors = network.apply(variables, maps, method="embed")

        def logits(x):
            return network.apply(variables, x, method="from_embedded").reshape(6, size, -1)

        found, pull_back = jax.vjp(logits, vectors)
        # All codes together, by random weights; one position after another.
        weights = jax.random.normal(KEY, found.shape)
        rows = jnp.eye(size)[:, None, :, None] * weights
        slopes = jax.lax.map(lambda row: pull_back(row)[0], rows)
        return jnp.max(jnp.abs(slopes), axis=(1, 4)).reshape(size, size)

    return np.asarray(largest(variables, maps)) > 0


@pytest.mark.parametrize(
    "network", [gated(channels=16, num_blocks=3), snail(channels=16)], ids=NETWORKS
)
def test_logits_depend_on_exactly_the_codes_before(network):
    np.testing.assert_array_equal(receptive_fields(network), np.tri(12, k=-1, dtype=bool))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"num_blocks": 2}, (5, 6)),
        pytest.param({"num_blocks": 1, "kernel_size": 5}, (5, 7), marks=pytest.mark.slow),
        pytest.param({"num_blocks": 5}, (7, 6), marks=pytest.mark.slow),
        pytest.param({"num_blocks": 5}, (8, 7), marks=pytest.mark.slow),
        pytest.param({"num_blocks": 3}, (1, 6), marks=pytest.mark.slow),
        pytest.param({"num_blocks": 1, "kernel_size": 5}, (6, 1), marks=pytest.mark.slow),
    ],
)
def test_gated_networks_read_the_rectangle_that_they_state(options, shape):
    network = gated(shape, **options)
    row, column = np.divmod(np.arange(np.prod(shape)), shape[1])
    up, left = row[:, None] - row, column[:, None] - column
    reach = network.reach
    above = (up >= 1) & (up <= reach + 1) & (np.abs(left) <= reach)
    expected = above | ((up == 0) & (left >= 1) & (left <= reach + 1))
    np.testing.assert_array_equal(receptive_fields(network), expected)
    whole = np.tri(len(row), k=-1, dtype=bool)
    enough = reach >= max(shape[1] - 1, shape[0] - 2)
    assert (expected == whole).all() == enough or shape[0] == 1


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        # Vectors reach the loop as maps do, which it shares with all networks.
        pytest.param(
            make,
            kind,
            marks=[] if (name, kind) == ("GatedPixelCNN", "maps") else [pytest.mark.slow],
        )
        for name, make in NETWORKS.items()
        for kind in CONTEXTS
    ],
)
def test_logits_position_by_position_equal_those_of_the_map(make, kind):
    network, context = make(), context_of(kind, 2)
    variables, maps = initialised(network, context), maps_of(network, 2)
    full, one_by_one = jax.device_get(in_both_ways(network, variables, context, maps))
    assert np.std(full) > 0.1
    np.testing.assert_allclose(one_by_one, full, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (gated(num_blocks=2, kernel_size=5), (1, 4)),
        (snail(kernel_size=(1, 3)), (4, 1)),
        pytest.param(gated(num_blocks=2, kernel_size=5), (4, 1), marks=pytest.mark.slow),
        pytest.param(snail(num_blocks=2, kernel_size=(1, 3)), (1, 4), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_logits_position_by_position_for_narrow_maps_and_other_kernels(network, shape):
    network = network.clone(map_shape=shape)
    full, one_by_one = in_both_ways(network, initialised(network), None, maps_of(network, 2))
    np.testing.assert_allclose(one_by_one, full, atol=1e-4)


@every
def test_logits_start_at_zero_and_are_finite_far_out(make):
    network, context = make(num_blocks=1), context_of("vectors", 2)
    maps = maps_of(network, 2)
    first, _ = jax.jit(network.init_with_output)(KEY, maps)
    assert not np.asarray(first).any()

    @jax.jit
    @jax.value_and_grad
    def total(both):
        return jnp.sum(jax.nn.log_softmax(network.apply(both[0], maps, both[1]))[..., 0])

    variables = initialised(network, context)
    for edge in (0.0, 1e-30, 1e3, -1e6):
        leaves = jax.tree.leaves(jax.device_get(total((variables, np.full_like(context, edge)))))
        assert all(np.isfinite(leaf).all() for leaf in leaves)


@every
def test_bfloat16_networks_give_float32_logits_near_those_of_float32(make):
    exact = make(num_blocks=1)
    rough = exact.clone(dtype=jnp.bfloat16)
    variables, maps = initialised(exact), maps_of(exact, 2)
    near = np.asarray(applied(exact, variables, maps, None))
    far, one_by_one = jax.device_get(in_both_ways(rough, variables, None, maps))
    assert far.dtype == np.float32
    np.testing.assert_allclose(far, near, atol=0.05 * np.abs(near).max())
    assert (far != near).any()
    np.testing.assert_allclose(one_by_one, far, atol=0.05)


@every
def test_a_context_reaches_its_own_position_and_no_row_above(make):
    network, context = make(), context_of("maps", 2)
    variables, maps = initialised(network, context), maps_of(network, 2)
    spoilt = np.array(context)
    spoilt[0, 1, 2] += 1
    one, other = (np.asarray(applied(network, variables, maps, c)) for c in (context, spoilt))
    moved = np.abs(other - one).max(-1)
    assert not moved[1].any()
    assert moved[0, 1, 2] > 1e-4
    assert not moved[0, 0].any()


@every
def test_dropout_needs_an_rng(make):
    network = make(dropout=0.5)
    variables, maps = initialised(network), maps_of(network, 2)
    plain = np.asarray(applied(network, variables, maps))
    np.testing.assert_array_equal(plain, applied(make(), variables, maps))
    one, two = (
        np.asarray(applied(network, variables, maps, rngs={"dropout": jax.random.key(seed)}))
        for seed in (0, 1)
    )
    assert (one != two).any()
    assert (one != plain).any()


@every
@pytest.mark.slow
def test_vmap_over_parameters(make):
    network = make((2, 2), 3, num_blocks=1)
    maps, variables = maps_of(network, 2), jax.device_get(initialised(network))
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf / 2]), variables)

    @jax.jit
    def together(both):
        return jax.vmap(lambda variables: solved(network, variables, None, maps))(both)

    for index, found in enumerate(together(both)):
        alone = applied(network, jax.tree.map(lambda leaf, i=index: leaf[i], both), maps)
        np.testing.assert_allclose(found, alone, atol=1e-4)


@every
def test_wrong_shapes_raise_with_the_expected_shape(make):
    network = make()
    variables, maps = initialised(network), np.asarray(maps_of(network, 2))
    for wrong in (maps[0], maps[:, :2]):
        with pytest.raises(ValueError, match=r"\(batch, 3, 4\).*\(.*\)"):
            network.apply(variables, wrong)
    for shape in ((2,), (2, 4, 3, 5), (2, 4, 3)):
        with pytest.raises(ValueError, match=r"\(batch, 3, 4, feature\), got \(2,.*\)"):
            network.apply(variables, maps, np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="integers, got float32"):
        network.apply(variables, maps.astype(np.float32))


def test_wrong_sizes_raise():
    for network, message in (
        (gated(kernel_size=2), "odd, got 2"),
        (snail(num_heads=3), "8 and 3"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(network.init, KEY, maps_of(network, 1))


def test_codes_out_of_range_are_clipped():
    network = gated(num_blocks=1)
    variables = initialised(network)
    both = (np.int32([codes] * 6).reshape(1, 3, 4) for codes in ([-3, 9], [0, 4]))
    np.testing.assert_array_equal(*(applied(network, variables, maps) for maps in both))


def test_no_maps_have_no_logits():
    for network in (gated(num_blocks=1), snail()):
        variables = jax.eval_shape(network.init, KEY, maps_of(network, 1))
        found = jax.eval_shape(network.apply, variables, maps_of(network, 1)[:0])
        assert found.shape == (0, *network.map_shape, network.num_codes)
