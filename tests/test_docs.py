"""What the documents name exists: modules, flags, configuration fields, files."""

import pathlib
import re
import runpy

import pytest

from tests.processes import TOP, command
from vlbeit_jax.config.describe import describe
from vlbeit_jax.tasks import Config

DOCUMENTS = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "vlbeit_jax" / "sample_model" / "README.md",
    *sorted((TOP / "docs").rglob("*.md")),
    *sorted((TOP / "configs").glob("*.py")),
]
PAGES = [path for path in DOCUMENTS if path.suffix == ".md"] + [TOP / "CHANGELOG.md"]
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m ((?:vlbeit_jax|tools)[\w.]*)((?:\\\n|[^\n`])*)")
MODULES = sorted({found[0] for path in DOCUMENTS for found in COMMAND.findall(path.read_text())})


@pytest.fixture(scope="module")
def helps():
    done = {module: command(module, "--help") for module in MODULES}
    assert not any(each.returncode for each in done.values()), done
    return {module: each.stdout for module, each in done.items()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_name_flags_and_fields_that_exist(path, helps):
    described = describe(Config(), "config")
    for module, arguments in COMMAND.findall(path.read_text()):
        for flag in re.findall(r"--([\w.]+)", arguments):
            if flag == "help":
                continue
            if flag.startswith("config."):
                assert f"--{flag}=" in described, flag
            else:
                assert re.search(rf"--(\[no\])?{flag}\b", helps[module]), f"{module} --{flag}"


def anchors(path):
    """What a link may name in a page: its headings, as GitHub writes them, and ids."""
    text = FENCED.sub("", path.read_text())
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    return named | set(re.findall(r' id="([^"]+)"', text))


def dead_links(path):
    """The links of a page to a file or a heading that does not exist."""
    dead = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", FENCED.sub("", path.read_text())):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(path):
    assert not dead_links(path)


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `name`, or two?\n[a](#a-name-or-two) [b](page.md#gone) [c](gone.md)\n")
    assert dead_links(page) == ["page.md#gone", "gone.md"]


def long_lines(text):
    """Lines of prose above 100 columns. Tables, code and links that fill a line may be longer."""
    prose = FENCED.sub("", text).splitlines()
    return [line for line in prose if len(line) > 100 and " " in line and line[0] != "|"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_prose_keeps_within_100_columns(path):
    assert not long_lines(path.read_text())


def test_long_lines_are_found():
    long = "a " * 51
    assert long_lines(f"{long}\n| {long}\n```\n{long}\n```\n") == [long]


def test_every_help_shows_an_example(helps):
    assert MODULES
    for module, text in helps.items():
        assert f"python -m {module}" in text


def test_the_layout_names_every_folder_and_file_of_the_package():
    design = (TOP / "docs" / "design.md").read_text()
    listed = set(re.findall(r"^(\S+\.\w+|\S+/)  ", design, re.MULTILINE))
    assert all((TOP / name).exists() for name in listed)
    here = {path for path in (TOP / "vlbeit_jax").iterdir() if not path.name.startswith("__")}
    names = {f"vlbeit_jax/{path.name}{'/' * path.is_dir()}" for path in here}
    assert names <= listed


def test_every_configuration_states_command_cost_and_source():
    for path in sorted((TOP / "configs").glob("*.py")):
        text = path.read_text()
        assert all(f"{word}:" in text.split('"""')[1] for word in ("Command", "Cost", "Figures")), (
            path
        )
        assert len(text.split('"""')[2].splitlines()) <= 45, path


@pytest.mark.parametrize("path", sorted((TOP / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_configuration_parses(path):
    from vlbeit_jax.tasks import parse

    values = runpy.run_path(str(path))["get_config"]().to_dict()
    tokenizers = ("text_tokenizer", "visual_tokenizer")
    values["task"] |= {name: "T" for name in tokenizers if name in values["task"]}
    for section in values["task"].values():
        if isinstance(section, dict) and "sources" in section:
            section["sources"] = ("D",)
    run = parse(values).run
    assert run.steps > 0 or run.epochs > 0  # Steps may follow from the data.


def test_readme_and_sources_name_no_machine():
    for path in [
        *DOCUMENTS,
        *TOP.rglob("*.sh"),
        *(TOP / "vlbeit_jax").rglob("*.py"),
        *(TOP / "tests").rglob("*.py"),
    ]:
        if ".venv" not in path.parts and path != pathlib.Path(__file__):
            assert not re.search(r"/(home|root|work|Users)/", path.read_text()), path
