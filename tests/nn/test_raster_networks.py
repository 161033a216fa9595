"""Networks over maps of codes: causality, and incremental against full evaluation."""

import itertools

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

every = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def solved(network, variables, context, maps):
    """Logits of each position, from the loop that is given these maps code by code."""

    def entry(logits, code):
        return code, logits

    @jax.jit
    def run(variables, context):
        inputs = jnp.moveaxis(maps, 0, -1)
        return network.solve(variables, context, entry, inputs, maps.shape[0])

    return jnp.moveaxis(run(variables, context), 2, 0)


@every
def test_logits_depend_on_exactly_the_codes_before(make):
    network = make(channels=16)
    variables = initialised(network)
    vectors = network.apply(variables, maps_of(network, 6), method="embed")

    @jax.jit
    @jax.vmap
    def jacobian(x):
        logits = jax.jacrev(lambda x: network.apply(variables, x[None], method="from_embedded"))
        return jnp.max(jnp.abs(logits(x)[0]), axis=(2, 5)).reshape(12, 12)

    result = jnp.max(jacobian(vectors), axis=0)
    before = np.tri(12, k=-1, dtype=bool)
    assert (result[~before] == 0).all()
    assert (result[before] > 0).all()


@every
@pytest.mark.parametrize("kind", CONTEXTS)
def test_logits_position_by_position_equal_those_of_the_map(make, kind):
    network, context = make(), context_of(kind, 2)
    variables, maps = initialised(network, context), maps_of(network, 2)
    full = jax.jit(network.apply)(variables, maps, context)
    assert jnp.std(full) > 0.1
    np.testing.assert_allclose(solved(network, variables, context, maps), full, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
@pytest.mark.parametrize(
    "network",
    [gated(num_blocks=2, kernel_size=5), snail(num_blocks=2, kernel_size=(1, 3))],
    ids=["gated", "snail"],
)
def test_logits_position_by_position_for_narrow_maps_and_other_kernels(network, shape):
    network = network.clone(map_shape=shape)
    variables, maps = initialised(network), maps_of(network, 2)
    full = jax.jit(network.apply)(variables, maps)
    np.testing.assert_allclose(solved(network, variables, None, maps), full, atol=1e-4)


@every
def test_logits_start_at_zero_and_are_finite_far_out(make):
    network, context = make(num_blocks=1), context_of("vectors", 2)
    maps = maps_of(network, 2)
    assert not network.apply(network.init(KEY, maps), maps).any()

    @jax.jit
    @jax.value_and_grad
    def total(both):
        return jnp.sum(jax.nn.log_softmax(network.apply(both[0], maps, both[1]))[..., 0])

    variables = initialised(network, context)
    for edge in (0.0, 1e-30, 1e3, -1e6):
        leaves = jax.tree.leaves(total((variables, jnp.full_like(context, edge))))
        assert all(np.isfinite(leaf).all() for leaf in leaves)


@every
def test_bfloat16_networks_give_float32_logits_near_those_of_float32(make):
    exact = make(num_blocks=1)
    rough = exact.clone(dtype=jnp.bfloat16)
    variables, maps = initialised(exact), maps_of(exact, 2)
    near, far = exact.apply(variables, maps), rough.apply(variables, maps)
    assert far.dtype == jnp.float32
    np.testing.assert_allclose(far, near, atol=0.05 * float(jnp.abs(near).max()))
    assert (far != near).any()
    np.testing.assert_allclose(solved(rough, variables, None, maps), far, atol=0.05)


@every
def test_a_context_reaches_its_own_position_and_no_row_above(make):
    network, context = make(), context_of("maps", 2)
    variables, maps = initialised(network, context), maps_of(network, 2)
    apply = jax.jit(network.apply)
    other = apply(variables, maps, context.at[0, 1, 2].add(1))
    moved = jnp.abs(other - apply(variables, maps, context)).max(-1)
    assert not moved[1].any()
    assert moved[0, 1, 2] > 1e-4
    assert not moved[0, 0].any()


@every
def test_dropout_needs_an_rng(make):
    network = make(dropout=0.5)
    variables, maps = initialised(network), maps_of(network, 2)
    plain = network.apply(variables, maps)
    np.testing.assert_array_equal(plain, make().apply(variables, maps))
    one, two = (
        network.apply(variables, maps, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1)
    )
    assert (one != two).any()
    assert (one != plain).any()


@every
def test_vmap_over_parameters(make):
    network = make((2, 2), 3, num_blocks=1)
    maps = maps_of(network, 2)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), initialised(network))

    def solve(variables):
        return solved(network, variables, None, maps)

    together = jax.vmap(solve)(both)
    for index in range(2):
        alone = network.apply(jax.tree.map(lambda leaf, i=index: leaf[i], both), maps)
        np.testing.assert_allclose(together[index], alone, atol=1e-4)


@every
def test_wrong_shapes_raise_with_the_expected_shape(make):
    network = make()
    variables = initialised(network)
    maps = maps_of(network, 2)
    for wrong in (maps[0], maps[:, :2]):
        with pytest.raises(ValueError, match=r"\(batch, 3, 4\).*\(.*\)"):
            network.apply(variables, wrong)
    for shape in ((2,), (2, 4, 3, 5), (2, 4, 3)):
        with pytest.raises(ValueError, match=r"\(batch, 3, 4, feature\), got \(2,.*\)"):
            network.apply(variables, maps, jnp.ones(shape))
    with pytest.raises(ValueError, match="integers, got float32"):
        network.apply(variables, maps.astype(jnp.float32))


def test_wrong_sizes_raise():
    for network, message in (
        (gated(kernel_size=2), "odd, got 2"),
        (snail(num_heads=3), "8 and 3"),
    ):
        with pytest.raises(ValueError, match=message):
            network.init(KEY, maps_of(network, 1))


def test_codes_out_of_range_are_clipped():
    network = gated(num_blocks=1)
    variables = initialised(network)
    far, near = jnp.array([-3, 9] * 6), jnp.array([0, 4] * 6)
    both = (network.apply(variables, maps.reshape(1, 3, 4)) for maps in (far, near))
    np.testing.assert_array_equal(*itertools.islice(both, 2))
