"""The Python in docs/python.md and in the README runs as it stands."""

import re

import cv2
import numpy as np
import pytest

from tests.convert.finetuned_runs import sets_in, task_of, write_run
from tests.tiny import TOP

PATH = TOP / "docs" / "python.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(PATH.read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the pictures that the page names."""
    rng = np.random.default_rng(0)
    for name in ("cat.jpg", "dog.png"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (40, 50, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_sample_is_used_as_documented(folder):
    encode, joined, masks, _ = BLOCKS
    names = {"np": np, "paths": ["cat.jpg", "dog.png"]}
    exec(encode + masks, names)
    width = names["model"].config.width
    assert names["found"].image.shape == (2, width)
    assert names["found"].text.shape == (1, width)
    side = names["model"].config.image_size
    assert names["picture"].shape == (side, side, 3)
    np.testing.assert_array_equal(names["views"].predicted, names["picture"])
    (readme,) = BLOCK.findall((TOP / "README.md").read_text())
    exec(readme, shorter := {})
    assert shorter["found"].patches.shape == (1, (side // 8) ** 2, width)
    exec(joined, names)
    assert names["joined"].shape == (2, width * (1 + names["model"].config.depth))


def test_a_collection_is_searched_as_documented(folder, world, capsys):
    sets = sets_in(folder / "sets")
    run = write_run(folder / "run", task_of("retrieval", sets["retrieval"], world.text_tokenizer))
    before = f"import vlbeit_jax\nmodel = vlbeit_jax.load({str(run)!r})\n"
    exec(before + BLOCKS[-1], {"paths": ["cat.jpg", "dog.png"]})
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"cat.jpg", "dog.png"}
