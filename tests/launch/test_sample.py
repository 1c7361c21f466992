"""launch/sample.sh and the two studies: which stages they run, and which again after a change."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from tests.launch.stand_ins import copy_of_launch, executable, misleading


@pytest.fixture
def sample(tmp_path):
    """A copy of launch/ in a folder with a quote in its name, and a stand-in for the package."""
    top = tmp_path / "O'Brien's folder"
    launch = copy_of_launch(top)
    (top / ".venv" / "bin").mkdir(parents=True)
    executable(top / ".venv" / "bin" / "python", FAKE.format(python=sys.executable))
    environment = misleading(tmp_path, launch / "sample.sh")

    def run(*arguments, script="link", **variables):
        done = subprocess.run(
            ["bash", script, *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        calls = top / "calls"
        made = [json.loads(line) for line in calls.read_text().splitlines()]
        calls.unlink()
        return made

    return top, run


# Runs scripts with the real Python. For a module of the package, it records the call and makes the
# output.
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
    (place / "config.json").write_text('{{"task": {{"model": {{"codes": 32}}}}}}')
    (place / "metrics.jsonl").write_text('{{"split": "validation", "codes_used": 30}}')
    (place / "checkpoints").mkdir(exist_ok=True)
    if not (place / "checkpoints" / "1").exists():
        (place / "checkpoints" / "1").write_text(str(os.getpid()))
elif module == "evaluate":
    weights = (pathlib.Path(given["from"]) / "checkpoints" / "1").read_text()
    pathlib.Path(given["json"]).write_text(json.dumps({{"of": weights}}))
elif module == "report":
    results = pathlib.Path(given["results"]).read_text()
    (pathlib.Path(given["out"]) / "report.html").write_text(results)
elif module == "tools.transfer.frozen":
    weights = (pathlib.Path(sys.argv[3]) / "checkpoints" / "1").read_text()
    pathlib.Path(sys.argv[4]).write_text(weights)
elif module == "tools.transfer.finetune":
    weights = (pathlib.Path(sys.argv[4]) / "checkpoints" / "1").read_text()
    folder = pathlib.Path(sys.argv[5])
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(f" {{sys.argv[3]}} of {{weights}}")
elif module == "tools.transfer.join":
    pathlib.Path(sys.argv[3]).write_text("".join(open(part).read() for part in sys.argv[4:]))
elif module == "tools.transfer.pictures":
    pathlib.Path(sys.argv[5]).write_text(pathlib.Path(sys.argv[3]).read_text())
"""


def names(calls):
    return [call[0].removeprefix("vlbeit_jax.") for call in calls]


def test_the_sample_makes_again_what_depends_on_a_change(sample):
    top, run = sample
    workdir = top / "sample_run"
    calls = run()
    assert names(calls) == ["text_tokenizer", "prepare", "main", "main", "evaluate", "report"]
    start = "--config.task.text.sources="
    (sources,) = (word.removeprefix(start) for word in calls[3] if word.startswith(start))
    assert ast.literal_eval(sources) == (f"{workdir}/tokens",)
    # Training resumes by itself, so it always runs.
    assert names(run("O'Brien's folder/sample_run")) == ["main", "main"]
    for removed, expected in (
        ("pretrain", ["main", "main", "evaluate", "report"]),
        ("text_tokenizer", ["text_tokenizer", "main", "main"]),
    ):
        shutil.rmtree(workdir / removed)
        assert names(run()) == expected
    weights = (workdir / "pretrain" / "checkpoints" / "1").read_text()
    for result in ("evaluation.json", "report.html", "results.json"):
        assert json.loads((workdir / result).read_text())["of"] == weights


def test_the_transfer_study_is_made_again_when_the_run_has_changed(sample):
    top, run = sample
    script = top / "launch" / "sample_transfer.sh"
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "launch/sample.sh" in done.stderr  # There is no run yet.
    run()
    tasks = ["emoji_category", "retrieval", "vqa_cell", "segmentation"]
    made = ["tools.transfer.frozen", *["tools.transfer.finetune"] * 4]
    made += ["tools.transfer.join", "tools.transfer.pictures"]
    calls = run(script=script)
    assert names(calls) == made and [call[1] for call in calls[1:5]] == tasks
    workdir = top / "sample_run"

    def joined():
        weights = (workdir / "pretrain" / "checkpoints" / "1").read_text()
        return weights + "".join(f" {task} of {weights}" for task in tasks)

    assert (workdir / "transfer.json").read_text() == joined()
    assert (workdir / "transfer.html").read_text() == joined()
    calls = run(script=script)
    assert names(calls) == ["tools.transfer.finetune"] * 4  # Each knows how to go on.
    assert not any("--all_rates" in call for call in calls)
    assert not any("--all_rates" in call for call in run(script=script, ALL_RATES="0"))
    calls = run(script=script, ALL_RATES="1")
    assert [call[-1] for call in calls] == ["--all_rates"] * 4
    with pytest.raises(AssertionError, match="ALL_RATES=yes: give 1 for all rates, or nothing"):
        run(script=script, ALL_RATES="yes")
    (workdir / "pretrain" / "checkpoints" / "1").write_text("other")
    assert names(run(script=script)) == made
    assert (workdir / "transfer.json").read_text() == joined() and "other" in joined()


def test_the_ablation_has_as_many_steps_of_pairs_in_each_run(sample):
    top, run = sample
    script = top / "launch" / "sample_ablation.sh"
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "launch/sample.sh" in done.stderr  # There is no run yet.
    run()
    calls = run(script=script)
    assert names(calls) == ["main", "main", "tools.transfer.ablation"]
    for call in calls[:2]:
        given = dict(word.removeprefix("--").partition("=")[::2] for word in call[1:])
        streams = given["config.task.schedule"].split(",")
        share = streams.count("pair") / len(streams)
        assert int(given["config.run.steps"]) * share == 2200
    # The last run of the three is the sample's, with pairs in every second one of 4,400 steps.
    assert calls[2][-1] == f"pairs_images_texts={top / 'sample_run' / 'pretrain'}"
    assert names(run(script=script)) == names(calls)  # All of them know how to go on.
