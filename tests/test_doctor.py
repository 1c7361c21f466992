"""The doctor finds each mistake that is made on purpose, says what to do, and goes on."""

import json
import shutil

import jax.numpy as jnp

from tests import tiny
from vlbeit_jax.errors import Exit, UsageError
from vlbeit_jax.runtime import device_checks, health
from vlbeit_jax.runtime.health import examine


def found(check, *arguments):
    """What one check finds: the exit code, and what it says."""
    (finding,) = examine({"check": lambda: check(*arguments)})
    return finding.code, finding.said


def doctor(*arguments):
    return tiny.command("vlbeit_jax.doctor", *arguments)


def test_a_healthy_machine_has_one_screen(world, tmp_path):
    done = doctor(f"--workdir={tmp_path / 'new' / 'run'}", f"--data={world.pairs},{world.tokens}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = ["versions", "host", "devices", "bfloat16", "step", "/dev/shm", "workdir"]
    assert [line.split()[0] for line in lines[:7]] == names and len(lines) == 10
    assert f"{world.pairs}: pairs (train 48, validation 16)" in lines[7]
    assert lines[-1] == "nothing is wrong" and not list(tmp_path.iterdir())


def test_mistakes_are_named_and_the_first_decides_the_exit_code(world, tmp_path):
    """Of two mistakes, the first one's code counts; the other checks go on."""
    damaged = tmp_path / "pairs"
    shutil.copytree(world.pairs, damaged)
    for path in damaged.glob("pairs-train*"):
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "file").write_text("")
    done = doctor(f"--workdir={tmp_path / 'file'}", f"--data={damaged},{tmp_path / 'none'}")
    assert done.returncode == Exit.USAGE
    wrong = [line for line in done.stdout.splitlines() if " wrong: " in line]
    assert [line.partition("wrong")[0].strip() for line in wrong] == ["workdir", "data 1", "data 2"]
    assert "is a file; name a folder" in wrong[0] and "pairs: cannot be read (" in wrong[1]
    assert "does not exist; make a data set with python -m vlbeit_jax.prepare" in wrong[2]
    assert done.stderr.splitlines()[-1].startswith("error: something is wrong: workdir, data 1")
    assert found(health.data_set, str(damaged))[0] == Exit.BAD_DATA


def test_a_device_that_computes_wrongly_is_told(monkeypatch):
    monkeypatch.setattr(device_checks.jnp, "matmul", lambda a, b, **_: (a @ b) * jnp.float32(1.01))
    code, said = found(device_checks.product)
    assert code == Exit.DEFECT and "multiplies wrongly: an error of" in said


def test_sums_in_bfloat16_are_not_good_enough(monkeypatch):
    monkeypatch.setattr(device_checks.jnp, "matmul", lambda a, b, **_: a @ b)
    assert found(device_checks.product)[0] == Exit.DEFECT


def test_a_step_with_a_wrong_loss_is_told(monkeypatch):
    class Step:
        total_compile_seconds = 0.0

        def __call__(self, state, frozen, batches):
            return state, {"mlm/loss": jnp.float32(jnp.nan), "refused": 1}

    monkeypatch.setattr(device_checks, "abstract_step", lambda *_: (Step(), *[None] * 4))
    for name in ("random_batches", "random_state", "random_weights"):
        monkeypatch.setattr(device_checks, name, lambda *_: None)
    code, said = found(device_checks.tiny_step)
    assert code == Exit.DEFECT and "has the loss nan, where about 3.7 is right" in said


def test_a_card_that_jax_does_not_use_is_told(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(device_checks.machine, "card", lambda: {"card": "NVIDIA H100"})
    code, said = found(device_checks.found_devices)
    assert code == Exit.USAGE and "has NVIDIA H100; run launch/install.sh cuda" in said
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # The user wants it so.
    assert found(device_checks.found_devices)[0] == Exit.DONE


def test_versions_that_do_not_belong_together_are_told(monkeypatch):
    real = health._version
    monkeypatch.setattr(health, "_version", lambda name: {"jaxlib": "0.1.2"}.get(name, real(name)))
    code, said = found(health.versions)
    assert code == Exit.USAGE and "jaxlib 0.1.2 does not belong to jax" in said
    monkeypatch.setattr(health, "_version", lambda name: "" if name == "grain" else real(name))
    assert found(health.versions)[1].startswith("grain not installed")


class Usage:
    free = 64 * health.MIB


def test_little_room_is_told(monkeypatch, tmp_path):
    """64 MiB in /dev/shm is what Docker gives."""
    monkeypatch.setattr(health.shutil, "disk_usage", lambda place: Usage)
    code, said = found(health.workdir, tmp_path)
    assert code == Exit.STORAGE and "has 64 MiB free; a checkpoint of base size" in said
    code, said = found(health.shared_memory)
    assert code == Exit.USAGE and "give --shm-size; or set config.loader.workers=0" in said


def test_a_disk_that_fails_is_told(monkeypatch, tmp_path):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(health.os, "fsync", full)
    code, said = found(health.workdir, tmp_path)
    assert code == Exit.STORAGE and "is full" in said and not list(tmp_path.iterdir())

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(health.os, "fsync", lambda number: None)
    monkeypatch.setattr(health.fcntl, "flock", no_locks)
    code, said = found(health.workdir, tmp_path)
    assert code == Exit.STORAGE and "has no file locks" in said
    monkeypatch.setattr(health.os, "access", lambda *_: False)
    assert "cannot be written to" in found(health.workdir, tmp_path)[1]


def test_an_error_of_a_check_ends_no_other():
    def broken():
        raise ImportError("libcuda.so.1: cannot open shared object file")

    def wrong():
        raise UsageError("no")

    findings = list(examine({"a": broken, "b": lambda: "fine", "c": wrong}))
    assert [(each.name, each.code) for each in findings] == [("a", 1), ("b", 0), ("c", 2)]
    assert findings[0].said == "ImportError: libcuda.so.1: cannot open shared object file"


def test_a_set_with_a_cut_description_is_told(world, tmp_path):
    shutil.copytree(world.tokens, tmp_path / "tokens")
    meta = tmp_path / "tokens" / "vlbeit_meta.json"
    content = json.loads(meta.read_text())
    meta.write_text(meta.read_text()[:50])
    code, said = found(health.data_set, str(tmp_path / "tokens"))
    assert code == Exit.BAD_DATA and "tokens: cannot be read (JSONDecodeError" in said
    meta.write_text(json.dumps(content | {"format": 1}))
    assert "prepare it again" in found(health.data_set, str(tmp_path / "tokens"))[1]
