"""Another program's file is imported from a bucket by its own name, and its copy goes."""

import json
import os

import pytest
from safetensors.torch import save_file

from tests import processes
from tests.convert.test_teachers import clip_names, clip_network

# gcsfs gives aiohttp whole bodies of up to 5 MiB, and aiohttp warns above 1 MiB.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


@pytest.fixture
def convert(folder, tmp_path):
    """Runs the command on a file of the bucket; nothing is left of its copy."""

    def run(name, *arguments):
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        line = [f"--from={folder / name}", *arguments, f"--out={folder / 'teacher'}"]
        ended = processes.command("vlbeit_jax.convert", *line, environment=environment)
        assert [path.name for path in tmp_path.iterdir() if "staging" in path.name] == []
        return ended

    return run


def test_a_file_is_imported_with_the_settings_beside_it(folder, tmp_path, convert):
    network = clip_names(clip_network())
    save_file({name: value.contiguous() for name, value in network.items()}, tmp_path / "x")
    folder.upload({"clip.safetensors": tmp_path / "x"})
    settings = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}
    (folder / "config.json").write_text(json.dumps(settings))
    ended = convert("clip.safetensors", "--format=clip")
    assert ended.returncode == 0, ended.stderr
    report = (folder / "teacher" / "import.txt").read_text()
    assert report.startswith("from clip.safetensors\n")
    assert "the activation is quick_gelu, as config.json says" in report


def test_errors_name_the_object(folder, convert):
    (folder / "page.pth").write_text("<html>no such file</html>")
    for name, said in (("page.pth", "but a web page"), ("none.pth", "no such file")):
        ended = convert(name, "--format=clip", "--activation=gelu")
        assert ended.returncode == 2 and f"{folder / name}: " in ended.stderr, ended.stderr
        assert said in ended.stderr and "staging" not in ended.stderr
    assert not (folder / "teacher").exists()
