"""The README's code runs, and what it points to is there."""

import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 9
    names = {}
    for code in blocks:
        exec(compile(code, "README.md", "exec"), names)
        if "load_fitted" in code:
            assert names["again"].model == names["fitted"].model
        if "two_moons" in code:
            names["points_log_prob"] = names["density"].log_prob(names["points"])
        if "GaussianMixture" in code:
            rows = names["jax"].numpy.ones((4, 6))
            mixed = names["model"].init(names["key"], rows)
            assert names["model"].apply(mixed, rows, method="log_prob").shape == (4,)
    assert names["samples"].shape == (100, 2)
    # A uniform density over the square that holds the moons has -4.2 nats.
    assert -3 < names["points_log_prob"].mean() < 0
    assert names["draws"].shape == (500, 2)
    assert names["doubt"].shape == (2000,)
    assert abs(names["q"].log_normalizer - 1.838) < 0.05  # log 2 pi
    assert names["faces"].shape == (16, 24, 24, 1)
    assert 5 < names["aux"].metrics["bits_per_dim"] < 9
    assert 0 < names["bound"].metrics["bits_per_dim"] < 2  # binary images
    jax, model = names["jax"], names["code_model"]
    variables = jax.eval_shape(model.init, names["key"], names["images"])
    sample = functools.partial(model.apply, method="sample")
    drawn = jax.eval_shape(lambda tree: sample(tree, names["key"], 2), variables)
    assert drawn.shape == (2, 24, 24, 1)
    images = names["jax"].ShapeDtypeStruct((2, 24, 24, 3), "uint8")
    judged = jax.eval_shape(
        names["game"].init_with_output, names["key"], names["images"][:2], images
    )
    assert [judgement.shape for judgement in judged[0]["b"]] == [(2, 3, 3), (2, 2, 2)]
    assert names["density"].log_prob(names["images"][:2] / 256 - 0.5).shape == (2,)


def test_pictures_and_commands_exist():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)", README)) | set(
        re.findall(r"^make (\w+)", README, re.M)
    )
    assert {"run", "test", "docs"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
