"""The command's flags: mistakes are told before anything is read or written."""

import pytest

from tests import tiny
from vlbeit_jax.convert.formats import EXPORTS, IMPORTS


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--to"),
        (["--to=torch"], "--from and --out missing"),
        (["--to=tensorflow", "--from=x", "--out=y"], "choose from torch, hf-beit, vlmo"),
        (["--format=onnx", "--from=x", "--out=y"], "choose from vlmo, beit"),
        (["--to=torch", "--format=vlmo", "--from=x", "--out=y"], "--list"),
        (
            ["--to=vlmo", "--from=x", "--out=y", "--data=sample:pairs"],
            "--data is for --to=torch, not for --to=vlmo",
        ),
        (
            ["--to=torch", "--from=x", "--out=y", "--codes=8"],
            "--codes is for --format=vlmo, --format=beit",
        ),
        (["--format=vqkd", "--from=x", "--out=y", "--verify"], "--verify is for --to=torch"),
        (["--format=vqkd", "--from=x", "--out=y", "--image_size=32"], "--image_size is for"),
        (["--format=vqkd", "--from=tests", "--out=y"], "tests is a folder; name the file in it"),
        (["--to=torch", "--from=nowhere", "--out=y"], "nowhere is no run's folder"),
        (["--format=vlmo", "--from=nowhere.pth", "--out=y"], "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_message(arguments, said):
    done = tiny.command("vlbeit_jax.convert", *arguments)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: ")
        and "Traceback" not in done.stderr
        and said in done.stderr
    )


def test_every_format_is_listed():
    done = tiny.command("vlbeit_jax.convert", "--list")
    assert done.returncode == 0
    listed = {line for line in done.stdout.splitlines() if line.startswith("--")}
    assert listed == {
        *(f"--to={name}" for name in EXPORTS),
        *(f"--format={name}" for name in IMPORTS),
    }
    for part in ("exact", "drops", "flags"):
        assert done.stdout.count(f"  {part}: ") == len(listed)
    for found in (*EXPORTS.values(), *IMPORTS.values()):
        assert (
            f"  exact: {found.exact}\n" in done.stdout
            and f"  drops: {found.drops}\n  flags: --{found.flags[0]}" in done.stdout
        )
