"""The command's flags: mistakes are told before anything is read or written."""

import json
import subprocess
import sys

import pytest

from tests import tiny
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.convert.formats import EXPORTS, FINE_TUNED_EXPORTS, IMPORTS

MISTAKES = [
    ([], "--to"),
    (["--to=torch"], "--from and --out missing"),
    (["--to=tensorflow", "--from=x", "--out=y"], "choose from torch, hf-beit, vlmo"),
    (["--format=onnx", "--from=x", "--out=y"], "choose from vlmo, beit"),
    (["--to=torch", "--format=vlmo", "--from=x", "--out=y"], "--list"),
    (
        ["--to=vlmo", "--from=x", "--out=y", "--data=sample:pairs"],
        "--data is for --to=torch, --to=torch (fine-tuned), not for --to=vlmo",
    ),
    (
        ["--to=torch", "--from=x", "--out=y", "--codes=8"],
        "--codes is for --format=vlmo, --format=beit",
    ),
    (["--format=vqkd", "--from=x", "--out=y", "--verify"], "--verify is for --to=torch"),
    (["--format=vqkd", "--from=x", "--out=y", "--image_size=32"], "--image_size is for"),
    (["--format=vqkd", "--from=tests", "--out=y"], "tests is a folder; name the file in it"),
    (["--to=torch", "--from=nowhere", "--out=y"], "nowhere is not the folder of a run"),
    (["--format=vlmo", "--from=nowhere.pth", "--out=y"], "no such file"),
]
# Of runs: a task, what is wrong with exporting it, and what is said.
OF_RUNS = [
    ("vqa", "--to=hf-beit", "task 'vqa'; export it with --to=torch"),
    ("vqa", "--to=vlmo", "--to=torch (every fine-tuned run) and --to=hf-beit (classifiers of im"),
    (
        "image_classification",
        "--to=torch --data=x --draws=3",
        "for --to=torch, not for --to=torch (fine-t",
    ),
    ("image_classification", "--to=torch --split=test", "--split says how --data is evaluated"),
    ("image_classification", "--to=hf-beit --data=x", "not for --to=hf-beit"),
    ("image_classification", "--to=torch --data=sample:pairs", "labelled_images are needed here"),
    ("vqkd", "--to=torch", "a pretraining run or a fine-tuned run is needed"),
]


@pytest.fixture(scope="module")
def endings(world, tmp_path_factory):
    """Exit code and errors of the command for each of MISTAKES and OF_RUNS, in one process."""
    folder = tmp_path_factory.mktemp("runs")
    sets, runs = sets_in(folder / "sets"), {"vqkd": world.vqkd}
    for name in ("vqa", "image_classification"):
        runs[name] = write_run(folder / name, task_of(name, sets[name], world.text_tokenizer))
    commands = [arguments for arguments, _ in MISTAKES]
    for name, arguments, _ in OF_RUNS:
        commands.append([f"--from={runs[name]}", f"--out={folder / 'out'}", *arguments.split()])
    code = """
import contextlib, io, json, sys
from absl import flags
from vlbeit_jax import cli
from vlbeit_jax.convert import __main__ as command
endings = []
for arguments in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS.flags_by_module_dict()[command.__name__]:
        flag.unparse()
    sys.argv[1:] = arguments
    output = io.StringIO()
    with contextlib.redirect_stderr(output):
        try:
            cli.run(command.main, command.OVERVIEW)
        except SystemExit as end:
            endings.append((end.code, output.getvalue()))
print(json.dumps(endings))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        cwd=tiny.TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "out").exists()
    return json.loads(done.stdout.splitlines()[-1])


IDS = [" ".join(each) for each, _ in MISTAKES] + [f"{task} {each}" for task, each, _ in OF_RUNS]
SAID = [said for *_, said in (*MISTAKES, *OF_RUNS)]


@pytest.mark.parametrize("number", range(len(SAID)), ids=IDS)
def test_mistakes_end_with_one_message(endings, number):
    (code, output), message = endings[number], SAID[number]
    assert code == 2 and output.startswith("error: ") and "Traceback" not in output
    assert message in output


def test_every_format_is_listed():
    done = tiny.command("vlbeit_jax.convert", "--list")
    assert done.returncode == 0
    listed = {line for line in done.stdout.splitlines() if line.startswith("--")}
    assert listed == {
        *(f"--to={name}" for name in EXPORTS),
        *(f"--to={name} (fine-tuned)" for name in FINE_TUNED_EXPORTS),
        *(f"--format={name}" for name in IMPORTS),
    }
    for part in ("exact", "drops", "flags"):
        assert done.stdout.count(f"  {part}: ") == len(listed)
    for found in (*EXPORTS.values(), *FINE_TUNED_EXPORTS.values(), *IMPORTS.values()):
        assert (
            f"  exact: {found.exact}\n" in done.stdout
            and f"  drops: {found.drops}\n  flags: --{found.flags[0]}" in done.stdout
        )
