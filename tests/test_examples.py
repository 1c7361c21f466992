"""Every file in examples/ runs as its docstring says, and prints what it promises."""

import json
import re
import runpy
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.convert.conftest import needs_torch
from tests.processes import TOP, command
from tests.test_own import write_pictures
from vlbeit_jax import tasks

EXAMPLES = TOP / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example in this process and returns the lines that it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder with a red and a blue disc in two versions each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("red", (40, 40, 220)), ("blue", (220, 60, 30))):
        for version in (0, 1):
            picture = np.full((64, 64, 3), 255, np.uint8)
            cv2.circle(picture, (32 + version, 32), 20, colour, -1)
            cv2.imwrite(str(folder / f"{name}{version}.png"), picture)
    return folder


def test_every_example_is_tested_and_documented():
    tested = set(re.findall(r'run\("(\w+\.py)"', (TOP / "tests" / "test_examples.py").read_text()))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}
    for path in EXAMPLES.glob("*.py"):
        said = path.read_text().split('"""')[1]
        assert f"python examples/{path.name}" in said
        assert "Input: " in said and "Output: " in said, path


def test_the_nearest_picture_is_of_the_same_colour(run, pictures):
    wanted = pictures / "red0.png"
    lines = run("search_pictures.py", pictures, wanted, "--top=2")
    assert [line.split()[1] for line in lines] == [str(wanted), str(pictures / "red1.png")]
    assert lines[0].startswith("1.000")
    kept = (pictures / "vectors.npz").stat().st_mtime_ns
    assert run("search_pictures.py", pictures, wanted, "--top=2") == lines
    assert (pictures / "vectors.npz").stat().st_mtime_ns == kept
    # Another file: the vectors are made again.
    (pictures / "red1.png").rename(pictures / "red2.png")
    assert run("search_pictures.py", pictures, wanted, "--top=2")[1].endswith("red2.png")


def test_words_are_filled_with_and_without_a_picture(run, pictures):
    alone = run("fill_in_words.py", "a red <mask>", "--top=3")
    assert len(alone) == 4 and alone[0].split() == ["mask", "1", "text", "alone"]
    both = run("fill_in_words.py", "a <mask> <mask>", pictures / "red0.png", "--top=3")
    assert len(both) == 8 and both[4].startswith("mask 2")
    assert all(line.count("%") == 2 for line in (*both[1:4], *both[5:]))


def test_masks_are_drawn(run, pictures, tmp_path):
    out = tmp_path / "masks.png"
    given = [pictures / "red0.png", pictures / "blue0.png"]
    lines = run("show_masks.py", *given, f"--out={out}")
    assert all(re.fullmatch(r".*png: \d+% of the hidden .*", line) for line in lines[:2])
    assert cv2.imread(str(out)).shape == (2 * 68, 4 * 68, 3)


def test_the_task_learns_its_slope(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    assert run("add_a_task.py", tmp_path / "run")[-1] == "learnt slope: 2.00"


@pytest.mark.slow
def test_a_run_goes_on_with_own_pictures(run, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    write_pictures(pictures, 24)
    lines = run("adapt_to_own_data.py", pictures, out, "--steps=2", "--batch=8")
    called = [line.split()[2].removeprefix("vlbeit_jax.") for line in lines[:4]]
    assert called == ["prepare", "evaluate", "main", "evaluate"]
    assert lines[4].split() == ["before", "after"]
    assert {line.split()[0] for line in lines[5:]} == {"mim", "mlm", "mvlm_image", "mvlm_text"}
    before, after = (json.loads((out / f"{name}.json").read_text()) for name in ("before", "after"))
    # On the same records.
    assert all(before[term]["count"] == after[term]["count"] for term in ("mim", "mvlm_text"))
    assert before["mim"] != after["mim"]


@needs_torch
def test_the_export_is_used_without_this_package(pictures, tmp_path):
    sample, export = TOP / "vlbeit_jax" / "sample_model", tmp_path / "export"
    done = command("vlbeit_jax.convert", f"--from={sample}", "--to=torch", f"--out={export}")
    assert done.returncode == 0, done.stderr
    # run("use_in_pytorch.py") in a process of its own, from a folder without the package.
    line = [sys.executable, EXAMPLES / "use_in_pytorch.py", export]
    line += [f"--picture={pictures / 'red0.png'}", "--text=a red ball"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, cosine, norm = done.stdout.splitlines()
    assert first == "image (1, 128)  text (1, 128)"
    assert -1 < float(cosine.split()[-1]) < 1 and float(norm.split()[-1]) > 0


def test_the_notebook_runs_and_keeps_its_output(tmp_path, monkeypatch):
    """Its cells run in turn; their kept outputs hold no error."""
    book = json.loads((EXAMPLES / "tour.ipynb").read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    names = {"display": lambda *shown: None}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert all(cell["outputs"] for cell in cells)
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds and "display_data" in kinds
