"""Launch scripts: well-formed, with usage errors, measured stages, and bounded restarts on one machine."""

import ast
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import TOP

LAUNCH = TOP / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), TOP / "tests" / "run.sh", TOP / ".ci" / "run"])
OURS = [
    path
    for path in SCRIPTS
    if path.parent == LAUNCH and path.name in ("gke.sh", "gpu.sh", "sample.sh", "slurm.sh", "tpu_vm.sh", "worker.sh")
]
# Whatever a shell could do to a word.
WORDS = [
    "--config=configs/sample.py",
    "--a=two words",
    "--b='quoted'",
    '--c="double"',
    "--d=$(touch hacked)`id`;*?{x,y}",
    "--e=",
    "--f=ä\\n",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_parse(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or script.name == "run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_and_shfmt_find_nothing(script):
    tools = TOP / ".venv" / "bin"
    path = f"{tools}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    for command in (["shellcheck", "--external-sources", script], ["shfmt", "-i", "2", "-ci", "-d", script]):
        done = subprocess.run(command, cwd=TOP, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["one", "two"]])
def test_the_sample_explains_its_use(arguments):
    done = subprocess.run(["bash", LAUNCH / "sample.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: launch/sample.sh [WORKDIR]" in done.stderr


def test_an_unknown_set_of_requirements_is_refused():
    done = subprocess.run(["bash", LAUNCH / "install.sh", "tests"], capture_output=True, text=True)
    assert done.returncode == 2 and "tests" in done.stderr


def misleading(folder, script):
    """A symlink to a script, ``link`` in a folder, and an environment whose CDPATH leads cd elsewhere and makes it print where."""
    for name in ("launch", "sample_run"):
        (folder / "decoy" / name).mkdir(parents=True)
    (folder / "link").symlink_to(script)
    return os.environ | {"CDPATH": str(folder / "decoy")}


@pytest.mark.parametrize("script", OURS, ids=lambda path: path.name)
@pytest.mark.parametrize("called", ["by a relative path", "through a symlink", "through two"])
def test_scripts_find_their_checkout(tmp_path, script, called):
    """So far that they can refuse a mistake; what sample.sh and worker.sh do then is below."""
    environment = misleading(tmp_path, script)
    (tmp_path / "other").symlink_to("link")
    (tmp_path / "there").mkdir()
    there, command = {
        "by a relative path": (TOP, f"launch/{script.name}"),
        "through a symlink": (tmp_path / "there", "../link"),
        "through two": (tmp_path / "there", "../other"),
    }[called]
    done = subprocess.run(["bash", command, "--dry-run", "--x"], cwd=there, env=environment, capture_output=True, text=True)
    said = {"gpu.sh": f"$ {LAUNCH}/install.sh cuda", "sample.sh": "usage: launch/sample.sh", "slurm.sh": "set NODES GPUS"}
    said |= {"worker.sh": "usage: launch/worker.sh"}
    assert done.returncode == (0 if script.name == "gpu.sh" else 2), done.stderr
    assert said.get(script.name, "unknown verb '--x'") in done.stderr and not done.stdout, done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_passes_its_exit_code_on_and_is_measured(tmp_path, code):
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    for runs in (1, 2):  # A stage without an output runs every time.
        done = subprocess.run([sys.executable, LAUNCH / "measure.py", "run", tmp_path, "", "", "--", sys.executable, "-c", work])
        assert done.returncode == code
        *_, line = lines = [json.loads(each) for each in (tmp_path / "stages.jsonl").read_text().splitlines()]
        assert len(lines) == runs
        assert line["exit_code"] == code and line["peak_memory_bytes"] > 200_000_000 and line["wall_seconds"] >= 0


def test_an_output_is_made_again_when_what_it_was_made_from_has_changed(tmp_path):
    def stage(output, inputs, code):
        command = [sys.executable, LAUNCH / "measure.py", "run", tmp_path, output, inputs, "--", sys.executable, "-c", code]
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
    assert stage("out", "model sample:pairs", f"{copy}; open('out', 'a').write('!')").returncode == 0 and made() == "two!"  # Otherwise.
    cut = stage("out", "model", "open('out', 'w').write('half'); raise SystemExit(1)")
    assert cut.returncode == 1 and made() == "half"
    assert stage("out", "model", "open('out', 'w').write('half'); raise SystemExit(1)").returncode == 1  # Not finished already.
    assert stage("out", "model", copy).returncode == 0 and made() == "two"
    foreign = stage("model", "", copy)  # A folder that no stage has made.
    assert foreign.returncode == 2 and "model is there" in foreign.stderr and (tmp_path / "model" / "weights").exists()


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
        done = subprocess.run(["bash", "link", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        calls = top / "calls"
        made = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
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
        "text_tokenizer", "prepare", "main", "main", "evaluate", "report",
    ]  # fmt: skip
    (sources,) = (word.partition("=")[2] for word in made[3] if word.startswith("--config.data.text.sources="))
    assert ast.literal_eval(sources) == (f"{top}/sample_run/tokens",)
    done, made = run("O'Brien's folder/sample_run")
    assert done.returncode == 0 and [call[0] for call in made] == ["vlbeit_jax.main"] * 2, done.stderr  # They resume by themselves.
    workdir = top / "sample_run"
    for anew, wanted in (("pretrain", ["main", "main", "evaluate", "report"]), ("text_tokenizer", ["text_tokenizer", "main", "main"])):
        shutil.rmtree(workdir / anew)
        done, made = run()
        assert done.returncode == 0 and [call[0].removeprefix("vlbeit_jax.") for call in made] == wanted, done.stderr
    weights = (workdir / "pretrain" / "checkpoints" / "1").read_text()
    for result in ("evaluation.json", "report.html"):
        assert json.loads((workdir / result).read_text())["of"] == weights
    assert json.loads((workdir / "results.json").read_text())["of"] == weights


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text('{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n')
    (tmp_path / "vqkd" / "config.json").write_text('{"visual_tokenizer": {"codes": 32}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text('{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n')
    assert subprocess.run([sys.executable, LAUNCH / "measure.py", "results", tmp_path]).returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {"mim": {"accuracy": 0.5}, "codes_used": 30, "codes": 32, "wall_seconds": 3.5, "peak_memory_bytes": 7}


@pytest.mark.parametrize(("codes", "ended"), [([0], 0), ([2], 2), ([1, 1, 0], 0), ([1], 1)])
def test_one_node_starts_again_after_a_crash_but_not_after_a_mistake(tmp_path, codes, ended):
    """A copy of launch/ whose install.sh does nothing, and an interpreter that ends as it is told."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    turns = tmp_path / "turns"
    turns.write_text("\n".join(map(str, codes)) + "\n")
    stub = tmp_path / "python"
    stub.write_text(
        f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>{tmp_path}/got\ncode=$(head -1 {turns})\n'
        f"(($(wc -l <{turns}) == 1)) || sed -i 1d {turns}\nexit $code\n"
    )
    stub.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stub), "RETRY_SECONDS": "0", "MAX_RESTARTS": "2"}
    done = subprocess.run(["bash", tmp_path / "launch" / "gpu.sh", *WORDS], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == ended, done.stderr
    got = (tmp_path / "got").read_bytes().decode().split("\0")[:-1]
    tries = {(0,): 1, (2,): 1, (1, 1, 0): 3, (1,): 3}[tuple(codes)]
    assert got == ["-m", "vlbeit_jax.main", *WORDS] * tries


@pytest.mark.parametrize("sent", ["TERM", "INT"])
def test_a_signal_ends_the_run_and_nothing_starts_again(tmp_path, sent):
    """The run gets it together with its children, is waited for, and leaves no process behind."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    stub = tmp_path / "python"
    child = tmp_path / "child.py"  # As loader processes do, it does not ignore Ctrl-C, which bash has its children do.
    child.write_text(
        "import os, pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    stub.write_text(
        f"#!/usr/bin/env bash\ntrap 'sleep 0.5; echo saved >>{tmp_path}/said; exit 143' TERM INT\n"
        f"echo here >>{tmp_path}/started\n{sys.executable} {child} &\nwait\n"
    )
    stub.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stub), "RETRY_SECONDS": "0"}
    script = subprocess.Popen(["bash", tmp_path / "launch" / "gpu.sh", "--x"], env=environment, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "child").exists)
    wait_for((tmp_path / "child").read_text)
    script.send_signal(getattr(signal, f"SIG{sent}"))
    said = script.communicate(timeout=30)[1]
    assert script.returncode == 143 and "restart" not in said
    assert (tmp_path / "said").read_text() == "saved\n" and len((tmp_path / "started").read_text().split()) == 1
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())))


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process):
    stat = pathlib.Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def worker(tmp_path):
    """Calls worker.sh in ``tmp_path`` with an interpreter that has a child."""
    stub = tmp_path / "python"
    stub.write_text(f"#!/usr/bin/env bash\necho here in $PWD\nsleep 60 &\necho $! >{tmp_path}/child\nwait\n")
    stub.chmod(0o755)
    environment = misleading(tmp_path, LAUNCH / "worker.sh") | {"PYTHON": str(stub), "RUNS": str(tmp_path / "runs"), "STOP_SECONDS": "5"}

    def run(*arguments, **settings):
        command = ["bash", "link", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment | settings, capture_output=True, text=True, timeout=30)

    return run


def test_a_worker_runs_one_thing_of_a_name_and_can_be_stopped(tmp_path, worker):
    assert worker("status", "a").stdout == "none\n"
    assert worker("start", "a", "--x").returncode == 0
    assert worker("status", "a").stdout.startswith("running ")
    again = worker("start", "a", "--x")
    assert again.returncode == 2 and "running already" in again.stderr
    wait_for((tmp_path / "child").exists)
    assert worker("log", "a").stdout == f"here in {TOP}\n"
    assert worker("stop", "a").returncode == 0
    assert worker("status", "a").stdout == "ended 143\n" and worker("stop", "a").returncode == 0
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())))
    assert worker("start", "a", "--x", PYTHON="true").returncode == 0  # A name may be used again.
    wait_for(lambda: worker("status", "a").stdout == "ended 0\n")


def test_a_worker_takes_a_relative_folder_for_its_runs(tmp_path, worker):
    assert worker("start", "a", RUNS="relative", PYTHON="true").returncode == 0
    wait_for((tmp_path / "relative" / "a" / "exit_code").exists)
    assert worker("status", "a", RUNS="relative").stdout == "ended 0\n"


def test_a_foreign_process_with_the_number_of_an_old_run_is_left_alone(tmp_path, worker):
    """Numbers are used again, after a reboot soon; the start of the process says whose it is."""
    foreign = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert worker("start", "a").returncode == 0
        record = tmp_path / "runs" / "a" / "process"
        number, started = record.read_text().split(maxsplit=1)
        wait_for((tmp_path / "child").exists)
        assert worker("stop", "a").returncode == 0
        for stale in (f"{foreign.pid} {started}", f"{foreign.pid}\n", f"{foreign.pid} "):
            record.write_text(stale)
            (tmp_path / "runs" / "a" / "exit_code").unlink(missing_ok=True)
            assert worker("status", "a").stdout == "lost\n"
            assert worker("stop", "a").returncode == 0 and foreign.poll() is None
        assert worker("start", "a", PYTHON="true").returncode == 0
        wait_for(lambda: worker("status", "a").stdout == "ended 0\n")
        assert foreign.poll() is None and number != str(foreign.pid)
    finally:
        foreign.kill()
        foreign.wait()


def test_a_worker_without_a_home_says_what_to_set(worker, tmp_path):
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", LAUNCH / "worker.sh", "status", "a"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: set RUNS, the folder for logs: there is no HOME\n"
    missing = worker("log", "never")
    assert missing.returncode == 2 and "no run of this name was started here" in missing.stderr
