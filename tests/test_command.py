"""The command line: mistakes are answered before anything starts."""

import json
import os
import shutil
import subprocess
import sys
import types

import pytest

from tests import tiny
from tests.processes import TOP, command
from vlbeit_jax import cli
from vlbeit_jax.config.describe import describe
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config

SECOND = ["--processes=2", "--process=1"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (
            ["--config.run.stepz=3"],
            ["--config.run.stepz: no such field; did you mean --config.run.steps?"],
        ),
        (["--config.run.steps=many"], ["--config.run.steps=many: must be a whole number"]),
        (["--config.optimizer.peak_lr=x"], ["--config.optimizer.peak_lr=x: must be a number"]),
        (["--config.task.model.sub_norm=yes"], ["sub_norm=yes: must be True or False"]),
        (["--config.task=vqkd"], ["--config.task=vqkd: is a section"]),
        (["--config.model.width=64"], ["no such field; did you mean --config.task.model.width?"]),
        (["--config.run.schedule=text"], ["did you mean --config.task.schedule?"]),
        (["--config.task.kind=vqkd"], ["config.task.kind='vqkd': the other fields are those of"]),
        (["--config.run.steps=0"], ["config.run.steps=0: must be > 0"]),
        (
            ["--config.task.model.heads=5", "--config.run.steps=7"],
            ["heads=5", "warmup_steps=200", "run.steps=7", "text_tokenizer is empty"],
        ),
        (["--config.task.pair.sources=('a',1)"], ["config.task.pair.sources", "str"]),
        (["--wrkdir=W"], ["--wrkdir: no such flag; did you mean --workdir?"]),
        (["--stepz=3"], ["--stepz: no such flag; did you mean --config.run.steps?"]),
        (
            ["--config.optimizer.lr=1"],
            ["--config.optimizer.lr: no such field; did you mean --config.optimizer.peak_lr?"],
        ),
        (["stray"], ["stray", "--"]),
        (["--config=no/such/file.py"], ["no/such/file.py"]),
        (["--config=configs/pretrain_base.py:huge"], ["huge", "tiny, small, base, large"]),
        (
            [f"--config.run.seed={2**31}"],
            ["config.run.seed=2147483648: must be in [0, 2147483647]"],
        ),
        (["--config.run.seed=-1"], ["config.run.seed=-1: must be in [0, 2147483647]"]),
        (
            [f"--config.run.steps={10**30}"],
            ["config.run.steps=1000000", "must be at most 2147483647"],
        ),
        (
            ["--config.cluster.heartbeat_timeout=0"],
            ["config.cluster.heartbeat_timeout=0: must be in [1, 1000000]"],
        ),
        (["--profile_steps=²:3"], ["--profile_steps=²:3", "FIRST:END"]),
        (["--coordinator=host:80"], ["--coordinator, --processes and --process go together"]),
        (
            ["--coordinator=host:80", "--processes=2", "--process=2"],
            ["--process=2 of --processes=2: must be in [0, 1]"],
        ),
        (["--coordinator=host:80", "--processes=1000000", "--process=2"], ["processes", "100000"]),
        (
            ["--coordinator=host:abc", *SECOND],
            ["--coordinator=host:abc: the port must be in [1, 65535]"],
        ),
        (
            ["--coordinator=host:0", *SECOND],
            ["--coordinator=host:0: the port must be in [1, 65535]"],
        ),
        (
            ["--coordinator=host:65536", *SECOND],
            ["--coordinator=host:65536: the port must be in [1, 65535]"],
        ),
        ([f"--coordinator=host:{'9' * 5000}", *SECOND], ["the port must be in [1, 65535]"]),
        (["--coordinator=host:", *SECOND], ["--coordinator=host:: the port must be in [1, 65535]"]),
        (["--coordinator=host", *SECOND], ["--coordinator=host: needs HOST:PORT"]),
        (["--coordinator=:80", *SECOND], ["--coordinator=:80: needs HOST:PORT"]),
        (
            ["--coordinator=fe80::1:80", *SECOND],
            ["--coordinator=fe80::1:80: needs HOST:PORT", "[fe80::1]:1234"],
        ),
        (["--coordinator=http://host:80", *SECOND], ["needs HOST:PORT"]),
    ],
    ids=lambda value: value[0],
)
def test_the_command_refuses_mistakes_before_it_starts(tmp_path, arguments, said):
    start = ["--config=configs/sample.py", f"--workdir={tmp_path}/X"]
    ended = command("vlbeit_jax.main", *start, *arguments)
    assert ended.returncode == 2 and ended.stdout == "", ended
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in said), ended.stderr
    assert not (tmp_path / "X").exists()


def test_the_command_needs_its_flags_and_helps():
    ended = command("vlbeit_jax.main")
    assert (
        ended.returncode == 2
        and "--workdir, --config are required" in ended.stderr
        and "Traceback" not in ended.stderr
    )
    ended = command("vlbeit_jax.main", "--help")
    assert ended.returncode == 0 and describe(Config(), "config") in ended.stdout


def test_addresses_that_are_right_are_taken():
    from vlbeit_jax.main import check_address

    for address in ("localhost:1", "node-1.cluster:65535", "10.0.0.1:1234", "[fe80::1]:80"):
        check_address("--coordinator", address)


@pytest.fixture(scope="module")
def nobody():
    """Runs a module as a user without a name or a home, as in docker run --user 12345."""
    start = ["unshare", "--user", "--map-user=12345"]
    code = "import os, pwd; pwd.getpwuid(os.getuid())"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*start, "true"], capture_output=True).returncode
    ):
        pytest.skip("unshare cannot make a user namespace here")
    gone = {"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"}
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    control = subprocess.run(
        [*start, sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "uid not found: 12345" in control.stderr

    def run(*arguments):
        command = [*start, sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


def test_a_user_without_a_home_keeps_no_compiled_steps(nobody):
    code = (
        "import sys; from vlbeit_jax.runtime.compilation_cache import use_compilation_cache; "
        "use_compilation_cache(sys.argv[1])"
    )
    done = nobody("-c", code, "auto")
    assert (
        done.returncode == 0
        and "compiled steps are not kept; set config.run.compilation_cache" in done.stderr
    ), done.stderr
    done = nobody("-c", code, "~/cache")
    assert (
        done.returncode == 1
        and "UsageError: config.run.compilation_cache=~/cache: the user has no home folder"
        in done.stderr
    )


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_trains_evaluates_and_reports(nobody, world, tmp_path):
    config = tiny.config_file(tiny.pretrain_config(world, steps=3, schedule="pair"), tmp_path)
    place = f"--from={tmp_path / 'run'}"
    done = nobody("-m", "vlbeit_jax.main", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0 and "compiled steps are not kept" in done.stderr, done.stderr
    asked = nobody(
        "-m",
        "vlbeit_jax.main",
        f"--config={config}",
        f"--workdir={tmp_path / 'other'}",
        "--config.run.compilation_cache=~/x",
    )
    assert (
        asked.returncode == 2
        and "the user has no home folder" in asked.stderr
        and "Traceback" not in asked.stderr
    ), asked.stderr
    for module, *arguments in (
        (
            "vlbeit_jax.evaluate",
            place,
            f"--data={world.pairs}",
            "--draws=1",
            f"--json={tmp_path / 'results.json'}",
        ),
        (
            "vlbeit_jax.report",
            place,
            f"--data={world.pairs}",
            f"--results={tmp_path / 'results.json'}",
            f"--out={tmp_path}",
        ),
    ):
        done = nobody("-m", module, *arguments)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: 9 GB", "CUDA out of memory"])
def test_a_full_device_is_explained(message):
    with pytest.raises(UsageError, match=f"Reduce the batch size.*{message}"):
        with cli.explains_full_memory():
            raise RuntimeError(message)


def test_training_says_it_of_the_run(monkeypatch):
    from vlbeit_jax import main
    from vlbeit_jax.runtime import cluster, start

    def fail(*given):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 GB")

    given = tiny.changed(Config(), run={"compilation_cache": ""})
    monkeypatch.setattr(main, "check_flags", lambda: (None, None))
    monkeypatch.setattr(main, "read_config", lambda: given)
    monkeypatch.setattr(main.cli, "config_values", lambda flag: {})
    monkeypatch.setattr(main, "WORKDIR", types.SimpleNamespace(value="RUN"))
    monkeypatch.setattr(cluster, "join", lambda *given: None)
    monkeypatch.setattr(start, "train", fail)
    with pytest.raises(UsageError, match="run.accumulate=2.*allocate 9 GB"):
        main.main()


def test_another_error_of_a_device_is_not_taken_for_a_full_one():
    with pytest.raises(RuntimeError, match="device lost"):
        with cli.explains_full_memory():
            raise RuntimeError("device lost")


UNTIMED = """
from vlbeit_jax import benchmark, cli
benchmark.measure = lambda *given: {}
cli.run(benchmark.main, "Says where a measurement comes from.")
"""


@pytest.mark.parametrize("given", [["--config=own:nano"], ["-config", "own:nano"]])
def test_a_measurement_has_the_command_as_it_was_typed(given):
    """Others repeat it on machines on which the packaged file has another path."""
    steps = ["--config.run.steps=5", "--config.task.schedule=pair"]
    arguments = [*given, *steps, "--config.task.model.vocabulary=300", "--notes=two words"]
    line = [sys.executable, "-c", UNTIMED, *arguments]
    done = subprocess.run(line, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["config"] == "own:nano"
    command = f"{' '.join(arguments[:-1])} '--notes=two words'"
    assert found["command"] == f"python -m vlbeit_jax.benchmark {command}"


PRINTS = """
import sys
from vlbeit_jax import cli

def main():
    if sys.stdin.read() == "many":
        for number in range(100_000):
            print(number)
    raise BrokenPipeError("of a loader process")

sys.argv = ["prints"]
cli.run(main, "Prints numbers.")
"""


def test_a_reader_that_ends_early_ends_the_command_without_a_word():
    line = [sys.executable, "-c", PRINTS]
    with subprocess.Popen(
        line, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(b"many")
        process.stdin.close()
        assert process.stderr.read() == b"" and process.wait() == cli.NOT_READ
    # The control: another pipe has broken, and the output is read.
    done = subprocess.run(line, cwd=TOP, input="", capture_output=True, text=True)
    assert done.returncode == 1 and "BrokenPipeError: of a loader process" in done.stderr
