"""A command gets huge pages by itself, once, and is otherwise the same command; who has set up the allocator keeps it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import tiny
from tests.tiny import TOP
from vlbeit_jax.runtime import cpu_memory

# A command that says what it was started as, and for how much of its memory huge pages were asked; whether there are any is up
# to the kernel.
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
    found = {"arguments": sys.argv[1:], "flags": sys.flags.optimize, "stdin": sys.stdin.read(), "huge_kb": huge}
    print(json.dumps(found | {"tunables": os.environ.get("GLIBC_TUNABLES")}))
    sys.exit(int(os.environ.get("CODE", "0")))
"""
HERE = cpu_memory._obstacle(
    {}, cpu_memory._glibc(), cpu_memory.THP.read_text() if cpu_memory.THP.is_file() else ""
)
needs_huge_pages = pytest.mark.skipif(bool(HERE), reason=HERE or "-")


def clean():
    """The environment without what the test itself was started with."""
    own = (cpu_memory.TUNABLES, cpu_memory.MARK, "LD_PRELOAD")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in own and not name.startswith("MALLOC_")
    }


def start(folder, *arguments, flags=(), stdin="", **environment):
    """Runs the probe as ``python -m vlbeit_jax.probe``, from a package that looks like ours and holds our module."""
    package = folder / "vlbeit_jax"
    if not package.exists():
        (package / "runtime").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "runtime" / "__init__.py").touch()
        (package / "runtime" / "cpu_memory.py").write_text(
            pathlib.Path(cpu_memory.__file__).read_text()
        )
        (package / "probe.py").write_text(PROBE)
    (folder / "starts").write_text("")
    environment = clean() | {"STARTS": str(folder / "starts")} | environment
    command = [sys.executable, *flags, "-m", "vlbeit_jax.probe", *arguments]
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
    "own",
    [
        {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        {"MALLOC_ARENA_MAX": "2"},
        {cpu_memory.MARK: "1"},
    ],
    ids=lambda own: next(iter(own)),
)
def test_settings_of_ones_own_are_kept(tmp_path, own):
    done, starts = start(tmp_path, **own)
    found = json.loads(done.stdout)
    assert (
        done.returncode == 0 and len(starts) == 1 and found["tunables"] == own.get("GLIBC_TUNABLES")
    )
    assert found["huge_kb"] < 64 << 10


@needs_huge_pages
def test_other_tunables_stay(tmp_path):
    done, starts = start(tmp_path, GLIBC_TUNABLES="glibc.rtld.nns=5")
    assert (
        len(starts) == 2
        and json.loads(done.stdout)["tunables"] == "glibc.rtld.nns=5:" + cpu_memory.SETTING
    )


def test_other_programs_are_left_alone(tmp_path):
    code = "from vlbeit_jax.runtime.cpu_memory import use_huge_pages; use_huge_pages(); import os; print(os.environ.get('GLIBC_TUNABLES'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=TOP,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "None", done.stderr


@pytest.mark.parametrize(
    ("environment", "glibc", "kernel", "said"),
    [
        ({}, (2, 36), "always [madvise] never", ""),
        ({"HOME": "/"}, (2, 35), "always [madvise] never", ""),
        ({}, (2, 36), "[always] madvise never", "to all or to none"),
        ({}, (2, 36), "always madvise [never]", "to all or to none"),
        ({}, (2, 36), "", "to all or to none"),
        ({}, (2, 34), "always [madvise] never", "glibc"),
        ({}, None, "always [madvise] never", "glibc"),
        (
            {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"},
            (2, 36),
            "always [madvise] never",
            "LD_PRELOAD",
        ),
        (
            {"MALLOC_TRIM_THRESHOLD_": "1"},
            (2, 36),
            "always [madvise] never",
            "MALLOC_TRIM_THRESHOLD_",
        ),
    ],
)
def test_where_there_is_something_to_do(environment, glibc, kernel, said):
    found = cpu_memory._obstacle(environment, glibc, kernel)
    assert said in found and bool(found) == bool(said)


@needs_huge_pages
@pytest.mark.parametrize("asked", [True, False])
def test_every_command_does_so_before_anything_else(asked):
    environment = clean() | ({} if asked else {cpu_memory.MARK: "1"})
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "vlbeit_jax.main",
        "--help",
    ]  # Says whenever Python starts: it imports site.
    done = subprocess.run(
        command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.count("Trains VL-BEiT") == 1
    assert done.stderr.count("| site\n") == 1 + asked


def test_results_stay_the_same(world, tmp_path, monkeypatch):
    for name in set(os.environ) - set(clean()):
        monkeypatch.delenv(name)
    found = []
    for number, mark in enumerate(("", "1")):
        if mark:
            monkeypatch.setenv(cpu_memory.MARK, mark)
        config = tiny.config_file(tiny.pretrain_config(world, steps=3, schedule="text"), tmp_path)
        done = tiny.command(
            "vlbeit_jax.main", f"--config={config}", f"--workdir={tmp_path / str(number)}"
        )
        assert done.returncode == 0, done.stderr
        found.append(
            [
                line["mlm/loss"]
                for line in tiny.metrics_of(tmp_path / str(number))
                if "mlm/loss" in line
            ]
        )
    assert found[0] == found[1] and found[0]
