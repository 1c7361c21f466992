"""Imports go one way, heavy libraries stay where they belong."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

from tests.tiny import TOP
from vlbeit_jax.tasks import TASKS

PACKAGE = TOP / "vlbeit_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# Lower may not import higher; folders of one level do not import each other.
LEVELS = [
    {
        "shapes",
        "types",
        "errors",
        "buckets",
        "copies",
        "places",
        "folders",
        "progress",
        "redact",
        "storage",
        "unread",
        "version",
        "config",
    },
    {"ops", "metrics"},
    {"data", "models"},
    {"objectives"},
    {"training"},
    {"cost"},
    {"tasks"},
    {"runtime"},
    {"prepare", "report", "convert", "plan", "api"},
    {
        "cli",
        "flag_errors",
        "main",
        "evaluate",
        "inspect",
        "text_tokenizer",
        "visual_tokens",
        "predict",
        "keep_tokens",
        "benchmark",
        "benchmark_input",
        "inspect_data",
        "compile",
        "doctor",
        "shared_memory",
        "scripts",
        "__main__",
    },
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: pathlib.Path) -> str:
    return (
        "__main__"
        if path.name == "__main__.py"
        else path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    )


def goes_up(own: str, name: str) -> bool:
    """Whether a part of the package imports from another that is not below it."""
    package, _, rest = name.partition(".")
    if package != "vlbeit_jax" or not rest or own == "__init__":
        return False
    other = LEVEL[rest.split(".")[0]]
    if LEVEL[own] == 0 or own == rest.split(".")[0]:
        return other > LEVEL[own]
    return other >= LEVEL[own] and own not in LEVELS[-1]


def test_imports_go_downward():
    upward = {
        str(path.relative_to(PACKAGE)): names
        for path in FILES
        if (names := [name for name in sorted(imports(path)) if goes_up(part(path), name)])
    }
    assert not upward
    # The control: between levels, between folders of one level, and within the lowest.
    assert goes_up("ops", "vlbeit_jax.models.layers") and goes_up("data", "vlbeit_jax.models")
    assert not goes_up("models", "vlbeit_jax.ops.patches") and not goes_up(
        "places", "vlbeit_jax.errors"
    )


def file_imports(files: list[pathlib.Path], top: pathlib.Path) -> dict[str, set[str]]:
    """For each module below ``top``, the modules it imports, anywhere in its file."""
    names = {
        ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }
    return {name: (imports(path) & names.keys()) - {name} for name, path in names.items()}


def cycle(graph: dict[str, set[str]]) -> set[str]:
    """One cycle of the graph, if there is any."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return set(error.args[1])
    return set()


def test_no_file_imports_itself_through_others():
    assert not cycle(file_imports(FILES, TOP))


def test_a_cycle_between_files_of_one_folder_is_found(tmp_path):
    """Even if one of the two imports is inside a function."""
    (tmp_path / "one.py").write_text("import two\n")
    (tmp_path / "two.py").write_text("def late():\n    from one import name\n")
    files = sorted(tmp_path.glob("*.py"))
    assert cycle(file_imports(files, tmp_path)) == {"one", "two"}
    (tmp_path / "two.py").write_text("")
    assert not cycle(file_imports(files, tmp_path))


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        (
            "jax",
            lambda path: (
                part(path) not in ("data", "metrics", "prepare", "types", "folders", "config")
            ),
        ),
        ("orbax", lambda path: path.name in ("checkpoint.py", "leaves.py")),
        ("grain", lambda path: part(path) == "data"),
        ("apache_beam", lambda path: path.name == "beam.py"),
        ("tensorflow", lambda path: False),
        ("torch", lambda path: part(path) == "convert"),
        ("transformers", lambda path: path.parent.name == "formats"),
    ],
)
def test_libraries_are_imported_where_they_belong(library, allowed):
    users = [
        path
        for path in FILES
        if any(name == library or name.startswith(library + ".") for name in imports(path))
    ]
    assert all(allowed(path) for path in users), users
    assert users or library == "tensorflow"


def test_the_package_imports_neither_tools_nor_tests():
    outside = [
        f"{path}: {name}"
        for path in FILES
        for name in imports(path)
        if name.split(".")[0] in ("tools", "tests")
    ]
    assert not outside


def test_flags_are_read_in_commands_only():
    users = {part(path) for path in FILES if {"absl.flags"} & imports(path)}
    assert users <= LEVELS[-1] | {"data"}  # data marks Grain's own flag as parsed.


def test_training_loads_neither_tensorflow_nor_torch():
    code = (
        "import sys, vlbeit_jax.runtime.start, vlbeit_jax.report.page, vlbeit_jax.prepare.build\n"
    )
    code += "sys.exit(', '.join({'tensorflow', 'torch', 'transformers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


TASK_CLASSES = {name.partition(":")[2] for name in TASKS.values()}


def questions(text: str, *, named: bool) -> list[str]:
    """Where a program asks which task it serves: lines that name a task or look one up.

    Args:
      text: of the program.
      named: whether a text that is the name of a task counts.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        looked_up = []
        if isinstance(node, ast.Constant) and named and node.value in TASKS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr == "kind":
            if ast.unparse(node.value) in TASK_CLASSES:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Subscript):
            looked_up = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get"):
            looked_up = node.args[:1]
        elif isinstance(node, ast.Match):
            looked_up = [node.subject]
        found += [ast.unparse(each) for each in looked_up if _is_kind_of_task(each)]
    return found


def _is_kind_of_task(node: ast.AST) -> bool:
    return re.search(r"\btask\.kind$", ast.unparse(node)) is not None


def test_shared_code_never_asks_which_task_it_runs():
    """Some formats of ``convert`` and their heads have the names of tasks."""
    asking = {
        str(path.relative_to(PACKAGE)): asked
        for path in FILES
        if part(path) != "tasks"
        and (asked := questions(path.read_text(), named=part(path) != "convert"))
    }
    assert not asking


@pytest.mark.parametrize(
    "text",
    [
        "if config.task.kind == 'pretrain': pass",
        "model.predictor_for('classify', ('image_classification', 'birds'))",
        "TABLE = {VQKD.kind: 1}",
        "TABLE.get(run.config.task.kind, None)",
        "TABLE[task.kind]",
        "match task.kind:\n    case _: pass",
    ],
)
def test_a_question_for_the_task_is_found(text):
    assert questions(text, named=True)
    assert not questions("print(f'a run of task {config.task.kind!r}')", named=True)


# Of the other large ones, docs/design.md lists the commands, and ``FORMATS`` the formats.
MAPPED = ("convert", "data", "models", "prepare", "report", "runtime", "tasks", "training")


@pytest.mark.parametrize("name", MAPPED)
def test_the_docstring_of_a_large_package_names_every_file(name):
    folder = PACKAGE / name
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    named = set(re.findall(r"``(\w+)``", said))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")} | {"standalone"}
    assert files <= named <= files | packages
