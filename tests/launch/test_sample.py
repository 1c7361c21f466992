"""launch/sample.sh and launch/measure.py: stages are measured, and run again if inputs change."""

import ast
import json
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.launch.stand_ins import LAUNCH, copy_of_launch, executable, misleading, wait_for

MEASURE = [sys.executable, LAUNCH / "measure.py"]


def stage(workdir, output, inputs, code):
    """Runs a stage whose command is Python code."""
    words = ["run", workdir, output, inputs, "--", sys.executable, "-c", code]
    return subprocess.run([*MEASURE, *words], cwd=workdir, capture_output=True, text=True)


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_is_measured_and_passes_its_exit_code_on(tmp_path, code):
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    for runs in (1, 2):  # A stage without an output runs every time.
        assert stage(tmp_path, "", "", work).returncode == code
        lines = (tmp_path / "stages.jsonl").read_text().splitlines()
        line = json.loads(lines[-1])
        assert len(lines) == runs and line["exit_code"] == code
        assert line["peak_memory_bytes"] > 200_000_000 and line["wall_seconds"] >= 0


# A run: it says that it is there, and after a signal it saves and ends.
SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    pathlib.Path("saved").write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, save)
pathlib.Path("there").touch()
time.sleep(60)
"""


def signalled(arguments, sent, folder):
    """Sends a signal to one process once the run in it is there; returns its exit code."""
    process = subprocess.Popen(arguments, cwd=folder)
    wait_for((folder / "there").exists)
    process.send_signal(sent)
    return process.wait(30)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_a_signal_to_a_stage_reaches_its_command_which_saves(tmp_path, sent):
    words = ["run", tmp_path, "", "", "--", sys.executable, "-c", SAVES]
    assert signalled([*MEASURE, *words], sent, tmp_path) == 75
    assert (tmp_path / "saved").read_text() == sent.name
    assert json.loads((tmp_path / "stages.jsonl").read_text())["exit_code"] == 75


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_to_a_script_ends_its_stage_and_no_other_begins(tmp_path, sent):
    script = tmp_path / "script.sh"
    script.write_text(
        f"source {LAUNCH}/stages.sh\nworkdir={tmp_path} python={sys.executable}\n"
        f"ln -s {LAUNCH} launch\nstage '' '' -c {shlex.quote(SAVES)}\ntouch another\n"
    )
    number = signal.Signals[sent]
    # A background job of a shell, such as this test, may ignore Ctrl-C.
    command = ["env", "--default-signal=INT", "bash", script]
    assert signalled(command, number, tmp_path) == 75
    assert (tmp_path / "saved").read_text() == sent and not (tmp_path / "another").exists()


@pytest.fixture
def model(tmp_path):
    """An input of stages; the output is a copy of it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("one")
    return tmp_path / "model" / "weights"


COPY = "open('out', 'w').write(open('model/weights').read())"


def test_an_output_is_made_again_when_input_or_command_has_changed(model, tmp_path):
    def made(code=COPY):
        done = stage(tmp_path, "out", "model sample:pairs", code)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out").read_text(), "already finished" in done.stdout

    assert made() == ("one", False)
    assert made() == ("one", True)
    model.write_text("two")
    assert made() == ("two", False)
    assert made(f"{COPY}; open('out', 'a').write('!')") == ("two!", False)


def test_an_incomplete_output_is_made_again(model, tmp_path):
    half = "open('out', 'w').write('half'); raise SystemExit(1)"
    for _ in range(2):
        assert stage(tmp_path, "out", "model", half).returncode == 1
    assert (tmp_path / "out").read_text() == "half"
    assert stage(tmp_path, "out", "model", COPY).returncode == 0
    assert (tmp_path / "out").read_text() == "one"


def test_a_folder_that_no_stage_has_made_is_left_alone(model, tmp_path):
    done = stage(tmp_path, "model", "", COPY)
    assert done.returncode == 2 and "model exists, but" in done.stderr and model.exists()


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


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text(
        '{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n'
    )
    (tmp_path / "vqkd" / "config.json").write_text('{"task": {"model": {"codes": 32}}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text(
        '{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n'
        '{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n'
    )
    assert subprocess.run([*MEASURE, "results", tmp_path]).returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {
        "mim": {"accuracy": 0.5},
        "codes_used": 30,
        "codes": 32,
        "wall_seconds": 3.5,
        "peak_memory_bytes": 7,
    }
