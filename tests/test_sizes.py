"""Files and functions have a size that a reader can hold in mind; the formatter lays them out."""

import ast
import pathlib

from tests.tiny import TOP

PACKAGE = TOP / "vlbeit_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 260, 65
# Larger ones, each with its reason.
LARGE_FILES = {
    "convert/standalone/vlbeit_torch.py": "users copy this one file into their own project",
}


def functions(path: pathlib.Path) -> dict[str, int]:
    """Lines of each function of a file by line and name, its docstring included."""
    # By name alone, the last ``__call__`` of a file would hide the others.
    return {
        f"{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


OTHERS = [
    path
    for folder in ("configs", "examples", "launch", "tools")
    for path in sorted((TOP / folder).rglob("*.py"))
]


def test_files_and_functions_fit_one_head():
    assert OTHERS
    for path in [*FILES, *OTHERS]:
        name = str(path.relative_to(PACKAGE if path in FILES else TOP))
        lines = len(path.read_text().splitlines())
        assert (lines > LONGEST_FILE) == (name in LARGE_FILES), f"{name}: {lines} lines"
        long = {each: n for each, n in functions(path).items() if n > LONGEST_FUNCTION}
        assert name in LARGE_FILES or not long, f"{name}: {long}"


def test_the_length_of_a_function_is_that_of_its_text(tmp_path):
    body = "\n".join(["    x = 1"] * LONGEST_FUNCTION)
    text = f"def long():\n{body}\n\n\nclass Other:\n    def long(self):\n        pass\n"
    (tmp_path / "long.py").write_text(text)
    second = LONGEST_FUNCTION + 5
    assert functions(tmp_path / "long.py") == {"1 long": LONGEST_FUNCTION + 1, f"{second} long": 2}


def test_the_formatter_decides_everywhere():
    marks = "# fmt" + ":", "# yapf" + ":"
    for folder in ("vlbeit_jax", "configs", "tools", "tests"):
        for path in (PACKAGE.parent / folder).rglob("*.py"):
            assert not any(mark in path.read_text() for mark in marks), path
