"""No password and no token is saved or shown; everything else stays as it is."""

import json

import pytest

from tests import tiny
from vlbeit_jax.cli import fail
from vlbeit_jax.redact import redacted
from vlbeit_jax.runtime.history import History
from vlbeit_jax.runtime.run_folder import config_changes, write_config
from vlbeit_jax.runtime.writer import Writer

HIDDEN = "s3cr3tvalue"
TOKEN = "hf_" + HIDDEN * 3
SECRETS = [
    f"https://user:{HIDDEN}@host/data",
    f"https://{HIDDEN}@host/data",
    f"s3://{HIDDEN}:{HIDDEN}@bucket/key",
    f"https://host/a.tar?X-Goog-Signature={HIDDEN}&x=1",
    f"https://host/a?X-Amz-Credential={HIDDEN}&X-Amz-Security-Token={HIDDEN}",
    f"gs://bucket/a?access_token={HIDDEN}",
    f"https://account.blob/x?sv=1&sig={HIDDEN}",
    f"api_key={HIDDEN}, password={HIDDEN}",
    f"AWS_SECRET_ACCESS_KEY={HIDDEN} HF_TOKEN={HIDDEN}",
    f"aws_access_key_id={HIDDEN}",
    f"cannot read {TOKEN}",
]
HARMLESS = [
    "gs://bucket/data/shard-00000-of-00010",
    "data/pairs@2,data/texts",
    "task.text_tokenizer=runs/tokenizer",
    "tokens_per_second=12.5 token_count=7",
    "https://host/a?page=3",
    "step 20/20 train: mlm loss 4.1 accuracy 9.1% > unigram 2.6%",
    "--config.run.seed=5 user@host:folder",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_left_out(text):
    assert HIDDEN not in redacted(text) and "***" in redacted(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


def test_values_of_every_kind():
    given = {"a": [SECRETS[0], {"b": (SECRETS[3], 1, None, True)}], "seed": 3}
    assert HIDDEN not in json.dumps(redacted(given))
    assert redacted({"seed": 3, "sources": ["x"]}) == {"seed": 3, "sources": ["x"]}


def test_nothing_that_a_run_writes_has_a_secret(world, tmp_path, capsys):
    config = tiny.pretrain_config(world)
    config = tiny.changed(config, task={"image": {"sources": (SECRETS[0],)}})
    write_config(tmp_path, config)
    assert config_changes(tmp_path, config) == []  # What is left out is no change.
    assert config_changes(tmp_path, tiny.changed(config, run={"steps": 9}))
    writer = Writer(tmp_path, 0, 10)
    writer.say(f"data: {SECRETS[0]}")
    with pytest.raises(ValueError), writer.noting_errors():
        raise ValueError(SECRETS[3])
    writer.close()
    History(tmp_path).add("ended", {"step": 0, "ended": f"failed: {SECRETS[4]}"})
    with pytest.raises(SystemExit):
        fail(f"cannot open {SECRETS[1]}")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert sum("***" in text for text in written) == 3
    assert HIDDEN not in "".join(written) and HIDDEN not in capsys.readouterr().err
