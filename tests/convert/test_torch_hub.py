"""The PyTorch file and the Hugging Face Hub: saved, uploaded and loaded again to the same bits."""

import json
import pathlib
import shutil
import sys

import pytest
import torch

from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.verify import module_of

huggingface_hub = pytest.importorskip("huggingface_hub")
# Of an export without an evaluation, in that order.
FILES = [
    "README.md",
    "config.json",
    "manifest.json",
    "model.safetensors",
    "text_tokenizer/sentencepiece.model",
    "text_tokenizer/text_tokenizer.json",
    "vlbeit_torch.py",
]


@pytest.fixture(scope="module")
def module(sample_export):
    return module_of(sample_export / "vlbeit_torch.py")


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def same_bits(one, other):
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(map(torch.equal, own.values(), others.values()))


def test_what_is_saved_is_an_export_with_the_same_bits(module, sample_export, tmp_path):
    model, tokenizer = module.load(sample_export)
    model.save_pretrained(tmp_path / "out")
    assert files_in(tmp_path / "out") == FILES
    for name in set(FILES) - {"manifest.json", "model.safetensors"}:
        assert (tmp_path / "out" / name).read_bytes() == (sample_export / name).read_bytes(), name
    assert same_bits(module.VLBEiT.from_pretrained(tmp_path / "out"), model)
    again, visual = module.load(tmp_path / "out")
    assert same_bits(again, model) and same_bits(visual, tokenizer) and not again.training


def test_changed_weights_are_saved_and_the_card_says_so_once(module, sample_export, tmp_path):
    """Also into the folder that they came from."""
    shutil.copytree(sample_export, tmp_path / "out")
    model = module.VLBEiT.from_pretrained(str(tmp_path / "out"))
    with torch.no_grad():
        model.vision_head.bias.add_(1)
    for _ in range(2):
        model.save_pretrained(tmp_path / "out")
    found = module.VLBEiT.from_pretrained(tmp_path / "out")
    assert same_bits(found, model) and not same_bits(found, module.load(sample_export)[0])
    assert (tmp_path / "out" / "README.md").read_text().count(module.CHANGED) == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_the_manifest_lists_the_export_and_nothing_else(module, sample_export, tmp_path, in_place):
    """What else lies in the folder: files of git, of an editor, of an evaluation, of the user."""
    out = tmp_path / "out"
    if in_place:
        shutil.copytree(sample_export, out)
    strangers = [".git/HEAD", ".README.md.swp", "notes/model.txt", "evaluations.txt"]
    for name in strangers:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    module.VLBEiT.from_pretrained(out if in_place else sample_export).save_pretrained(out)
    listed = json.loads((out / "manifest.json").read_text())
    before = json.loads((sample_export / "manifest.json").read_text())
    saved = {name for name in before if in_place or name != "evaluate.py"}
    assert listed.keys() == saved and set(strangers) <= set(files_in(out))
    assert module.load(out)


def test_the_configuration_is_strict(module, sample_export, tmp_path):
    with pytest.raises(ValueError, match="the configuration is that of config.json"):
        module.VLBEiT.from_pretrained(sample_export, config={"width": 3})
    with pytest.raises(TypeError, match="no argument strict"):
        module.VLBEiT.from_pretrained(sample_export, strict=False)
    for name, change in (("more", {"depth": 5}), ("fewer", {"depth": 3})):
        shutil.copytree(sample_export, tmp_path / name)
        config = json.loads((sample_export / "config.json").read_text())
        config["model"] |= change
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="config.json is damaged"):
            module.VLBEiT.from_pretrained(tmp_path / name)
        write_manifest(tmp_path / name)
        with pytest.raises(ValueError, match="the weights do not fit config.json"):
            module.VLBEiT.from_pretrained(tmp_path / name)


def test_a_model_without_an_export_is_not_saved(module, sample_export, tmp_path):
    model = module.VLBEiT(module.load(sample_export)[0].config)
    with pytest.raises(ValueError, match="was not loaded from an export"):
        model.save_pretrained(tmp_path)


def test_a_repository_holds_the_whole_export(module, sample_export, monkeypatch):
    """The Hub's two calls are recorded instead of made."""
    uploaded = {}

    def upload(self, *, repo_id, folder_path, **others):
        uploaded[repo_id] = files_in(pathlib.Path(folder_path))
        return "commit"

    api = huggingface_hub.HfApi
    made = type("Made", (), {"repo_id": "me/model"})
    monkeypatch.setattr(api, "create_repo", lambda self, **others: made)
    monkeypatch.setattr(api, "upload_folder", upload)
    assert module.load(sample_export)[0].push_to_hub("me/model") == "commit"
    assert uploaded == {"me/model": FILES}


def test_a_repository_is_downloaded_and_loaded(module, sample_export, monkeypatch):
    from huggingface_hub import hub_mixin

    asked = {}

    def snapshot(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(sample_export)

    monkeypatch.setattr(
        hub_mixin, "hf_hub_download", lambda filename, **others: str(sample_export / filename)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = module.VLBEiT.from_pretrained("me/model", revision="v1")
    assert same_bits(found, module.load(sample_export)[0])
    assert (asked["repo_id"], asked["revision"]) == ("me/model", "v1")
    assert asked["ignore_patterns"] == ["evaluat*"]


def test_the_file_works_without_huggingface_hub(sample_export, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    shutil.copytree(sample_export, tmp_path / "out")
    module = module_of(tmp_path / "out" / "vlbeit_torch.py")
    model, _ = module.load(tmp_path / "out")
    assert not hasattr(model, "save_pretrained")
    with torch.no_grad():
        assert model(text=torch.tensor([[2, 9, 3]])).text_mean.shape == (1, 128)
