"""launch/sample.sh and launch/measure.py: stages are measured, and outputs made again when what they were made from has changed."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from tests.test_launch import LAUNCH, misleading


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_passes_its_exit_code_on_and_is_measured(tmp_path, code):
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    for runs in (1, 2):  # A stage without an output runs every time.
        done = subprocess.run(
            [
                sys.executable,
                LAUNCH / "measure.py",
                "run",
                tmp_path,
                "",
                "",
                "--",
                sys.executable,
                "-c",
                work,
            ]
        )
        assert done.returncode == code
        *_, line = lines = [
            json.loads(each) for each in (tmp_path / "stages.jsonl").read_text().splitlines()
        ]
        assert len(lines) == runs
        assert (
            line["exit_code"] == code
            and line["peak_memory_bytes"] > 200_000_000
            and line["wall_seconds"] >= 0
        )


def test_an_output_is_made_again_when_what_it_was_made_from_has_changed(tmp_path):
    def stage(output, inputs, code):
        command = [
            sys.executable,
            LAUNCH / "measure.py",
            "run",
            tmp_path,
            output,
            inputs,
            "--",
            sys.executable,
            "-c",
            code,
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    def made():
        return (tmp_path / "out").read_text()

    copy = "open('out', 'w').write(open('model/weights').read())"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("one")
    assert stage("out", "model sample:pairs", copy).returncode == 0 and made() == "one"
    again = stage("out", "model sample:pairs", copy)
    assert again.returncode == 0 and "finished already" in again.stdout
    (tmp_path / "model" / "weights").write_text("two")  # Trained anew.
    assert stage("out", "model sample:pairs", copy).returncode == 0 and made() == "two"
    assert (
        stage("out", "model sample:pairs", f"{copy}; open('out', 'a').write('!')").returncode == 0
        and made() == "two!"
    )  # Otherwise.
    cut = stage("out", "model", "open('out', 'w').write('half'); raise SystemExit(1)")
    assert cut.returncode == 1 and made() == "half"
    assert (
        stage("out", "model", "open('out', 'w').write('half'); raise SystemExit(1)").returncode == 1
    )  # Not finished already.
    assert stage("out", "model", copy).returncode == 0 and made() == "two"
    foreign = stage("model", "", copy)  # A folder that no stage has made.
    assert (
        foreign.returncode == 2
        and "model is there" in foreign.stderr
        and (tmp_path / "model" / "weights").exists()
    )


@pytest.fixture
def sample(tmp_path):
    """A copy of launch/ in a folder whose name has a quote; installing does nothing, and the package's commands only leave traces."""
    top = tmp_path / "O'Brien's folder"
    shutil.copytree(LAUNCH, top / "launch")
    (top / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    python = top / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE.format(python=sys.executable))
    python.chmod(0o755)

    environment = misleading(tmp_path, top / "launch" / "sample.sh")

    def run(*arguments):
        done = subprocess.run(
            ["bash", "link", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        calls = top / "calls"
        made = (
            [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        )
        calls.unlink(missing_ok=True)
        return done, made

    return top, run


# Real Python for what is no module of the package; else it notes the call and makes the output.
FAKE = """#!{python}
import json, os, pathlib, sys
if sys.argv[1] != "-m":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
with open("calls", "a") as calls:
    calls.write(json.dumps(sys.argv[2:]) + "\\n")
given = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[3:])
module = sys.argv[2].removeprefix("vlbeit_jax.")
if module in ("text_tokenizer", "prepare"):
    pathlib.Path(given["out"]).mkdir()
elif module == "main":
    place = pathlib.Path(given["workdir"])
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text('{{"visual_tokenizer": {{"codes": 32}}}}')
    (place / "metrics.jsonl").write_text('{{"split": "validation", "codes_used": 30}}')
    (place / "checkpoints").mkdir(exist_ok=True)
    if not (place / "checkpoints" / "1").exists():
        (place / "checkpoints" / "1").write_text(str(os.getpid()))
elif module == "evaluate":
    pathlib.Path(given["json"]).write_text(json.dumps({{"of": (pathlib.Path(given["from"]) / "checkpoints" / "1").read_text()}}))
elif module == "report":
    (pathlib.Path(given["out"]) / "report.html").write_text(pathlib.Path(given["results"]).read_text())
"""


def test_the_sample_evaluates_anew_what_was_trained_anew(sample):
    top, run = sample
    done, made = run()
    assert done.returncode == 0, done.stderr + done.stdout
    assert [call[0].removeprefix("vlbeit_jax.") for call in made] == [
        "text_tokenizer",
        "prepare",
        "main",
        "main",
        "evaluate",
        "report",
    ]
    (sources,) = (
        word.partition("=")[2] for word in made[3] if word.startswith("--config.data.text.sources=")
    )
    assert ast.literal_eval(sources) == (f"{top}/sample_run/tokens",)
    done, made = run("O'Brien's folder/sample_run")
    assert done.returncode == 0 and [call[0] for call in made] == ["vlbeit_jax.main"] * 2, (
        done.stderr
    )  # They resume by themselves.
    workdir = top / "sample_run"
    for anew, wanted in (
        ("pretrain", ["main", "main", "evaluate", "report"]),
        ("text_tokenizer", ["text_tokenizer", "main", "main"]),
    ):
        shutil.rmtree(workdir / anew)
        done, made = run()
        assert (
            done.returncode == 0
            and [call[0].removeprefix("vlbeit_jax.") for call in made] == wanted
        ), done.stderr
    weights = (workdir / "pretrain" / "checkpoints" / "1").read_text()
    for result in ("evaluation.json", "report.html"):
        assert json.loads((workdir / result).read_text())["of"] == weights
    assert json.loads((workdir / "results.json").read_text())["of"] == weights


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text(
        '{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n'
    )
    (tmp_path / "vqkd" / "config.json").write_text('{"visual_tokenizer": {"codes": 32}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text(
        '{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n'
    )
    assert (
        subprocess.run([sys.executable, LAUNCH / "measure.py", "results", tmp_path]).returncode == 0
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {
        "mim": {"accuracy": 0.5},
        "codes_used": 30,
        "codes": 32,
        "wall_seconds": 3.5,
        "peak_memory_bytes": 7,
    }
