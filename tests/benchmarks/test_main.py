"""Every benchmark runs through, at a tiny size, and prints whole tables."""

from __future__ import annotations

import re

import pytest

from benchmarks import density_2d, fit, flows, glow, input, plane, scaling, vae, vq
from benchmarks.size import Size
from benchmarks.vq_size import VqStepSize

TINY = {"levels": 1, "width": 4, "batch_size": 2, "threads": 2, "repeats": 1}


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table, without the line below the head; all rows as long as their head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        assert rows[1] == ["---"] * len(rows[0])
        assert all(len(row) == len(rows[0]) and all(row) for row in rows)
        found.append([rows[0], *rows[2:]])
    return found


@pytest.mark.slow
def test_glow_speed_and_peak(capsys):
    config = glow.Config(
        only=("peer", "peak"),
        modes=("remat",),
        depths=(1,),
        image_size=4,
        matrix_rows=16,
        peer=False,
        **TINY,
    )
    glow.main(config)
    text = capsys.readouterr().out
    parameters, speed, peak = tables(text)
    # 2x2 positions of 12 channels, of which 6 are read by networks of width 4.
    kernels = 2 * 12 * 12 + 9 * 6 * 4 + 4 * 4 + 9 * 4 * 12
    vectors = 12 + 2 * 12 + 2 * 4 + 2 * 4 + 2 * 12  # log magnitudes, actnorms, last layer
    assert parameters[1][1:3] == [str(kernels + vectors + 2 * 4 * 12), "float32"]
    assert [row[:2] for row in speed[1:]] == [
        ["step", "ours, remat (recommended)"],
        ["log_prob", "ours"],
        ["sampling", "ours"],
    ]
    assert len(peak) == 2


@pytest.mark.slow
def test_flows(capsys):
    config = flows.Config(
        kinds=("spline-autoregressive", "affine-autoregressive"),
        libraries=(),
        entries=2,
        width=4,
        steps=1,
        bins=2,
        batch_size=8,
        updates=30,
        seeds=2,
        repeats=1,
    )
    flows.main(config)
    found = tables(capsys.readouterr().out)
    assert len(found) == 4
    for speed, likelihood in (found[:2], found[2:]):
        assert [row[:2] for row in speed[1:]] == [
            ["step", "ours"],
            ["log_prob", "ours"],
            ["sampling", "ours"],
        ]
        # Rows are standardised: a standard normal has about -2.8.
        assert [row[0] for row in likelihood[1:]] == ["ours"]
        assert -3.2 < float(likelihood[1][3]) < -2
        assert likelihood[1][1] != likelihood[1][2]


@pytest.mark.slow
def test_fit(capsys):
    fit.main(fit.Config(data=("moons",), libraries=("ours",), seeds=1))
    ((head, row),) = tables(capsys.readouterr().out)
    assert head[0] == "side"
    assert row[0] == "ours"
    # Standardised, two moons have about -1.7 nats, a standard normal -2.8.
    assert -2.0 < float(row[3]) < -1.5


@pytest.mark.slow
def test_density_2d(capsys):
    config = density_2d.Config(
        densities=("two_moons", "eight_gaussians"),
        libraries=(),
        width=4,
        steps=1,
        bins=2,
        batch_size=8,
        updates=30,
        seeds=2,
    )
    density_2d.main(config)
    (found,) = tables(capsys.readouterr().out)
    assert [row[:2] for row in found[1:]] == [["two moons", "ours"], ["eight gaussians", "ours"]]
    for row in found[1:]:
        assert -3.2 < float(row[4]) < -2
        assert row[2] != row[3]
    assert found[1][4] != found[2][4]


@pytest.mark.slow
def test_plane(capsys):
    config = plane.Config(
        energies=("ring",), steps=2, updates=300, seeds=2, repeats=1, threads=2, peer=False
    )
    plane.main(config)
    speed, closeness = tables(capsys.readouterr().out)
    assert [row[0] for row in speed[1:]] == ["ours"]
    assert closeness[1][:2] == ["ring", "ours"]
    assert all(0 < float(value) < 2 for value in closeness[1][2:])


@pytest.mark.slow
def test_vae(capsys):
    config = vae.Config(
        peers=("flax",),
        flax_hidden=4,
        flax_latents=2,
        hidden=4,
        latents=2,
        samples=3,
        batch_size=8,
        images=24,
        matrix_rows=16,
        calls=3,
        repeats=1,
        epochs=1,
    )
    vae.main(config)
    step, flax, importance, epoch, peak = tables(capsys.readouterr().out)
    parameters = str(2 * 784 * 4 + 784 + 3 * 4 * 2 + 2 * 4 + 2 * 2)
    for found in (step, flax, importance):
        assert all(row[1:3] == [parameters, "float32"] for row in found[1:])
        # A coin a pixel has 543 nats; ours starts from the shares of white pixels instead.
        ours, *others = (float(row[-1]) for row in found[1:])
        assert 0 < ours < 300
        assert all(500 < loss < 600 for loss in others)
    assert [row[0] for row in flax[1:]] == ["ours", "flax"]
    assert [row[0] for row in epoch[1:]] == ["ours, scanned", "ours, streamed"]
    assert [row[0] for row in peak[1:]] == ["ours"]


@pytest.mark.slow
def test_vq(capsys):
    kinds = ("average", "gradient", "rotation", "cosine", "residual", "lookup-free", "gumbel")
    config = vq.Config(
        peer=False,
        kinds=(*((kind, 4) for kind in kinds), ("finite-scalar", 512)),
        maps=3,
        map_side=2,
        vector=5,
        networks=("GatedPixelCNN",),
        sides=(3,),
        codes=5,
        channels=8,
        count=2,
        step=VqStepSize(channels=(4,), blocks=1, hidden=3, codes=6, latents=5, batch_size=8),
        calls=3,
        repeats=1,
        draws=1,
    )
    vq.main(config)
    quantize, sampling, step = tables(capsys.readouterr().out)
    assert [row[:3] for row in quantize[1:]] == [
        [kind, str(codes), "ours"] for kind, codes in config.kinds
    ]
    # Batches are taken in turn, and averages change.
    assert all(row[-2] != row[-1] for row in quantize[1:])
    assert [row[:2] for row in sampling[1:]] == [["GatedPixelCNN", "3x3"]] * 2
    assert [row[3] for row in sampling[1:]] == ["incremental", "naive"]
    for row in sampling[1:]:
        assert row[7] == "1.0000"
        assert float(row[8]) < 1e-5 < float(row[9])
    blocks = 2 * (9 * 4 * 3 + 3 + 3 * 4 + 4)
    ends = 16 * 4 + 4 + 4 * 5 + 5 + 9 * 5 * 4 + 4 + 16 * 4 + 4
    (found,) = step[1:]
    assert found[:3] == ["ours", str(blocks + ends + 784), "float32"]
    # From the shares of white pixels on; a coin a pixel has 543 nats.
    assert 0 < float(found[-1]) < 300


@pytest.mark.slow
def test_glow_depth_and_memory(capsys):
    config = glow.Config(
        only=("depth", "memory"),
        modes=("scan",),
        compiled_depths=(1, 2),
        memory_depth=1,
        memory_width=4,
        image_size=4,
        peer=False,
        **TINY,
    )
    glow.main(config)
    text = capsys.readouterr().out
    compiled, times, occupied = tables(text)
    assert [row[:2] for row in compiled[1:]] == [["1", "scan"], ["2", "scan"], ["1", "unrolled"]]
    assert [row[0] for row in times[1:]] == ["scan", "unrolled"]
    for row in occupied[1:]:
        idle, _, settled, steps, most = map(int, row[1:])
        assert idle < settled <= steps <= most
    assert [row[0] for row in occupied[1:]] == [
        "ours, plain scan",
        "ours, reversible, compiled before",
    ]


@pytest.mark.slow
def test_scaling(capsys):
    config = scaling.Config(
        base=Size(levels=1, steps=1, width=4, batch_size=2, image_size=4),
        batch_size=(2,),
        width=(4, 8),
        steps=(1,),
        image_size=(4,),
        devices=(2,),
        repeats=1,
    )
    scaling.main(config)
    sizes, exponents, devices, *paper = tables(capsys.readouterr().out)
    assert [row[:2] for row in sizes[1:]] == [
        ["batch_size", "2"],
        ["width", "4"],
        ["width", "8"],
        ["steps", "1"],
        ["image_size", "4"],
    ]
    assert exponents[1][0] == "width"
    assert [row[0] for row in devices[1:]] == ["2"]
    assert [len(table) for table in paper] == [10] * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_input(capsys):
    config = input.Config(
        archive_images=120,
        folder_images=20,
        prepared_images=20,
        seconds=0.01,
        repeats=1,
        train_seconds=0.01,
        shrink=True,
    )
    input.main(config)
    text = capsys.readouterr().out
    (found,) = tables(text)
    assert [row[0].partition(",")[0] for row in found[1:]] == [
        "embedded:faces",
        "embedded:digits",
        "npz:",
        "embedded:sprites",
        "folder:",
        "folder:",
        "tfds:",
    ]
    assert re.search(r"^Slower than training on this machine: .+\.$", text, re.M)
