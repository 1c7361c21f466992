"""A command restarts itself once for huge pages, and keeps an allocator that the user has set."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import tiny
from tests.tiny import TOP
from vlbeit_jax.runtime import cpu_memory

# A command that prints how it was started, and for how much of its memory it asked for huge pages.
# Whether it gets them is up to the kernel.
PROBE = """
import ctypes, json, os, pathlib, sys
from vlbeit_jax.runtime.cpu_memory import use_huge_pages

if __name__ == "__main__":
    pathlib.Path(os.environ["STARTS"]).open("a").write(f"{os.getpid()}\\n")
    use_huge_pages()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    size = 64 << 20
    ctypes.memset(libc.malloc(size), 1, size)
    parts = pathlib.Path("/proc/self/smaps").read_text().split("VmFlags:")
    asked = [part for part, flags in zip(parts, parts[1:]) if "hg" in flags.splitlines()[0].split()]
    huge = sum(int(part.split("\\nSize:")[1].split()[0]) for part in asked)
    found = {"arguments": sys.argv[1:], "flags": sys.flags.optimize, "stdin": sys.stdin.read()}
    print(json.dumps(found | {"huge_kb": huge, "tunables": os.environ.get("GLIBC_TUNABLES")}))
    sys.exit(int(os.environ.get("CODE", "0")))
"""
THP = cpu_memory.THP.read_text() if cpu_memory.THP.is_file() else ""
HERE = cpu_memory._obstacle({}, cpu_memory._glibc(), THP)
needs_huge_pages = pytest.mark.skipif(bool(HERE), reason=HERE or "-")


def clean():
    """The environment without settings of the allocator."""
    own = (cpu_memory.TUNABLES, cpu_memory.MARK, "LD_PRELOAD", "MALLOC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def start(folder, *arguments, flags=(), stdin="", module="vlbeit_jax.probe", **environment):
    """Runs the probe as ``python -m MODULE``, beside a package with only our module."""
    package = folder / "vlbeit_jax"
    if not package.exists():
        (package / "runtime").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "runtime" / "__init__.py").touch()
        shutil.copy(cpu_memory.__file__, package / "runtime")
        (package / "probe.py").write_text(PROBE)
    if not module.startswith("vlbeit_jax."):
        other = folder.joinpath(*module.split(".")).with_suffix(".py")
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text(PROBE)
    (folder / "starts").write_text("")
    environment = clean() | {"STARTS": str(folder / "starts")} | environment
    command = [sys.executable, *flags, "-m", module, *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, (folder / "starts").read_text().split()


@needs_huge_pages
def test_a_command_starts_again_once_as_the_same_process(tmp_path):
    arguments = ["--a=1 2", "", "ü", "--b='\"$x"]
    done, starts = start(tmp_path, *arguments, flags=["-O"], stdin="read once", CODE="7")
    assert done.returncode == 7 and not done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["arguments"] == arguments and found["flags"] == 1 and found["stdin"] == "read once"
    assert len(starts) == 2 and len(set(starts)) == 1
    assert found["tunables"] == cpu_memory.SETTING and found["huge_kb"] >= 64 << 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0"),
        ("MALLOC_ARENA_MAX", "2"),
        (cpu_memory.MARK, "1"),
    ],
)
def test_settings_of_the_user_are_kept(tmp_path, name, value):
    own = {name: value}
    done, starts = start(tmp_path, **own)
    assert done.returncode == 0 and len(starts) == 1
    found = json.loads(done.stdout)
    assert found["tunables"] == own.get("GLIBC_TUNABLES") and found["huge_kb"] < 64 << 10


@needs_huge_pages
def test_other_tunables_stay(tmp_path):
    done, starts = start(tmp_path, GLIBC_TUNABLES="glibc.rtld.nns=5")
    assert len(starts) == 2
    assert json.loads(done.stdout)["tunables"] == "glibc.rtld.nns=5:" + cpu_memory.SETTING


@needs_huge_pages
@pytest.mark.parametrize(("module", "count"), [("tools.study.probe", 2), ("others.probe", 1)])
def test_the_tools_of_the_repository_start_again_too(tmp_path, module, count):
    done, starts = start(tmp_path, module=module)
    assert done.returncode == 0 and len(starts) == count, done.stderr
    wanted = cpu_memory.SETTING if count == 2 else None
    assert json.loads(done.stdout)["tunables"] == wanted


def test_small_commands_ask_for_huge_pages_first():
    code = (
        "from tools import command; command.use_huge_pages = lambda: print('asked');"
        "command.run(print, None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, env=clean(), capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["asked", "[]"], done.stderr


def test_other_programs_are_left_alone(tmp_path):
    code = (
        "import os; from vlbeit_jax.runtime.cpu_memory import use_huge_pages; use_huge_pages();"
        "print(os.environ.get('GLIBC_TUNABLES'))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=TOP, env=clean(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "None", done.stderr


MADVISE = "always [madvise] never"


@pytest.mark.parametrize(
    ("environment", "glibc", "kernel", "said"),
    [
        ({}, (2, 36), MADVISE, ""),
        ({"HOME": "/"}, (2, 35), MADVISE, ""),
        ({}, (2, 36), "[always] madvise never", "to all or to none"),
        ({}, (2, 36), "always madvise [never]", "to all or to none"),
        ({}, (2, 36), "", "to all or to none"),
        ({}, (2, 34), MADVISE, "glibc"),
        ({}, None, MADVISE, "glibc"),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, (2, 36), MADVISE, "LD_PRELOAD"),
        ({"MALLOC_TRIM_THRESHOLD_": "1"}, (2, 36), MADVISE, "MALLOC_TRIM_THRESHOLD_"),
    ],
)
def test_a_command_restarts_only_where_it_helps(environment, glibc, kernel, said):
    found = cpu_memory._obstacle(environment, glibc, kernel)
    assert said in found and bool(found) == bool(said)


@needs_huge_pages
@pytest.mark.parametrize("asked", [True, False])
def test_every_command_restarts_before_anything_else(asked):
    environment = clean() | ({} if asked else {cpu_memory.MARK: "1"})
    # Whenever Python starts, it imports site, and -X importtime says so.
    command = [sys.executable, "-X", "importtime", "-m", "vlbeit_jax.main", "--help"]
    done = subprocess.run(
        command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.count("Trains VL-BEiT") == 1
    assert done.stderr.count("| site\n") == 1 + asked


@pytest.mark.slow
@needs_huge_pages
def test_results_stay_the_same(world, tmp_path):
    """A plain Python restarts itself; a fork of ``tests.processes`` has the mark, and does not."""
    config = tiny.config_file(tiny.pretrain_config(world, steps=3, schedule="text"), tmp_path)
    given = ("vlbeit_jax.main", f"--config={config}")
    command = [sys.executable, "-m", *given, f"--workdir={tmp_path / 'with'}"]
    environment = clean() | {"XLA_FLAGS": tiny.one_device(os.environ["XLA_FLAGS"])}
    plain = subprocess.run(
        command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=300
    )
    forked = tiny.command(*given, f"--workdir={tmp_path / 'without'}")
    assert plain.returncode == forked.returncode == 0, plain.stderr + forked.stderr
    lines = [tiny.metrics_of(tmp_path / run) for run in ("with", "without")]
    with_pages, without = ([line["mlm/loss"] for line in each] for each in lines)
    assert with_pages == without and with_pages
