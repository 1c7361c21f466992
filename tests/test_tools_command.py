"""What the commands of tools/ share."""

import pytest

from tools import command
from vlbeit_jax.errors import UsageError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 130, "interrupted"), (UsageError("no such run"), 2, "error: no such")],
)
def test_a_command_ends_without_a_traceback(error, code, said, capsys, monkeypatch):
    def fails(arguments):
        raise error

    monkeypatch.setattr("sys.argv", ["command", "argument"])
    with pytest.raises(SystemExit) as ended:
        command.run(fails, "overview")
    assert ended.value.code == code and said in capsys.readouterr().err
