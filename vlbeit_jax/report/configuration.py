"""The configuration of a run as its difference to the defaults, and how to use it again."""

import pathlib
import pprint
import shlex
from typing import Any

from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.report.markup import Section, element, folded, note, table, words
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.differences import differences
from vlbeit_jax.training.saved_run import CONFIG_FILE

REPEAT_FILE = "repeat.py"


def repeat_file(config: Config) -> str:
    """Returns a configuration file that holds the differences, and so gives the same run."""
    values: dict[str, Any] = {"task": {"kind": config.task.kind}}
    whole = to_dict(config)
    for each in differences(config):
        *sections, name = each.path.split(".")
        inner, source = values, whole
        for section in sections:
            inner, source = inner.setdefault(section, {}), source[section]
        inner[name] = source[name]
    return (
        '"""The configuration of a run: what differs from the defaults."""\n\n'
        "from vlbeit_jax.config.parse import to_config_dict\n"
        "from vlbeit_jax.tasks import parse\n\n"
        f"VALUES = {pprint.pformat(values, width=96, sort_dicts=False)}\n\n\n"
        "def get_config():\n"
        '    """Returns the whole configuration."""\n'
        "    return to_config_dict(parse(VALUES, to_train=False))\n"
    )


def configuration_section(config: Config, out: pathlib.Path) -> Section:
    """Returns the settings that differ from the defaults, and writes a file that repeats them."""
    (out / REPEAT_FILE).write_text(repeat_file(config), encoding="utf-8")
    rows = [
        [
            element("code", each.path),
            element("code", repr(each.value)),
            element("code", repr(each.default)),
            each.meaning,
        ]
        for each in differences(config)
    ]
    file = shlex.quote(str(out / REPEAT_FILE))
    command = f"python -m vlbeit_jax.main --config={file} --workdir=NEW_RUN"
    return Section(
        "Configuration",
        [
            words("This command trains with the same settings again:"),
            element("pre", command),
            note(
                f"{REPEAT_FILE} lies beside this page. It holds the settings below; all others are "
                f"at their defaults. {CONFIG_FILE} in the folder of the run lists every setting."
            ),
            folded(
                f"{len(rows)} settings differ from the defaults",
                table("", ("Setting", "This run", "Default", "Meaning"), rows),
            ),
        ],
    )
