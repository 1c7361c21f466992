"""No file of the program runs what it reads, and what others wrote is escaped on every page."""

import ast
import json

import pytest

from tests.tiny import TOP
from vlbeit_jax.report.markup import Html, Section, document, element, table

FOLDERS = ("vlbeit_jax", "tools", "launch", "examples", "configs")
FILES = [TOP / "setup.py", *(path for name in FOLDERS for path in (TOP / name).rglob("*.py"))]
NOTEBOOKS = sorted((TOP / "examples").rglob("*.ipynb"))
# These run code that lies in the data they read.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "shutil.unpack_archive",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
}
METHODS = {"extractall", "read_pickle", "to_pickle"}  # Of whatever object.
# Arguments that must not have another value, of whatever function.
ARGUMENTS = {"shell": False, "allow_pickle": False, "trust_remote_code": False}
# An error's class is no danger: a damaged PyTorch file raises it.
ALLOWED = {"pickle.UnpicklingError"}


def dotted(node: ast.AST) -> str:
    """The name of an expression such as a.b.c; empty for another one."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def real_names(tree: ast.AST) -> dict[str, str]:
    """From names in a file to what they were imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def dangers(source: str) -> list[str]:
    """What in a file could run code that it reads."""
    tree = ast.parse(source)
    names, found = real_names(tree), []

    def name_of(node: ast.AST) -> str:
        first, dot, rest = dotted(node).partition(".")
        return names.get(first, first) + dot + rest

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = name_of(node)
            module = name.split(".")[0]
            bare = isinstance(node, ast.Name) and name in MODULES
            if module in MODULES and name not in ALLOWED and not bare:
                found.append(name)
            if name in CALLS:
                found.append(name)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"from {node.module}")
        if isinstance(node, ast.Call):
            found += call_dangers(node, name_of(node.func))
    return found


def call_dangers(node: ast.Call, name: str) -> list[str]:
    found = []
    if isinstance(node.func, ast.Name) and name in BUILTINS or name.startswith("builtins."):
        found.append(name)
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        found.append(node.func.attr)
    given = {
        word.arg: getattr(word.value, "value", "unknown") for word in node.keywords if word.arg
    }
    found += [
        f"{argument}={given[argument]}"
        for argument, only in ARGUMENTS.items()
        if argument in given and given[argument] is not only
    ]
    if name == "torch.load" and given.get("weights_only") is not True:
        found.append("torch.load without weights_only=True")
    return found


HOSTILE = [
    "import pickle\npickle.loads(data)",
    "import pickle as p\np.load(file)",
    "from pickle import loads",
    "import cloudpickle\nread = cloudpickle.load",
    "import joblib\njoblib.load(path)",
    "import marshal\nmarshal.loads(data)",
    "import shelve\nshelve.open(path)",
    "import pandas\npandas.read_pickle(path)",
    "eval(text)",
    "exec(text)",
    "def late():\n    return __import__(name)",
    "compile(text, '', 'exec')",
    "import builtins\nbuiltins.eval(text)",
    "import yaml\nyaml.load(text)",
    "from yaml import load as read\nread(text)",
    "import yaml\nyaml.unsafe_load(text)",
    "import tarfile\ntarfile.open(path).extractall(folder)",
    "import zipfile\nwith zipfile.ZipFile(path) as archive:\n    archive.extractall()",
    "import shutil\nshutil.unpack_archive(path)",
    "import subprocess\nsubprocess.run(line, shell=True)",
    "import subprocess\nsubprocess.run(line, shell=wanted)",
    "import subprocess as s\ns.getoutput(line)",
    "import os\nos.system(line)",
    "from os import popen\npopen(line)",
    "import numpy as np\nnp.load(path, allow_pickle=True)",
    "import torch\ntorch.load(path)",
    "import torch as t\nt.load(path, weights_only=False)",
    "from torch import load\nload(path, map_location='cpu')",
    "import torch\ntorch.load(path, weights_only=safe)",
    "import torch\ntorch.jit.load(path)",
    "Model.from_pretrained(name, trust_remote_code=True)",
]
HARMLESS = [
    "model.eval()",
    "import re\nre.compile(text)",
    "step.lower(x).compile()",
    "import yaml\nyaml.safe_load(text)",
    "import json\njson.load(file)",
    "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
    "import torch\ntorch.load(path, weights_only=True)",
    "import subprocess\nsubprocess.run([name], shell=False)",
    "import pickle\nknown = isinstance(error, pickle.UnpicklingError)",
    "import tarfile\ntarfile.open(path).extractfile(member)",
    "text = 'pickle.loads'",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_each_danger_is_found(source):
    assert dangers(source)


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_harmless_is_not_reported(source):
    assert not dangers(source)


def test_no_file_runs_what_it_reads():
    assert len(FILES) > 300
    found = {str(path.relative_to(TOP)): dangers(path.read_text()) for path in FILES}
    assert not {path: what for path, what in found.items() if what}


def test_no_notebook_runs_what_it_reads():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        lines = [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
        shell = [line for line in lines if line.lstrip().startswith(("!", "%"))]
        assert not dangers("\n".join(line.rstrip("\n") for line in lines if line not in shell))


def test_no_script_runs_what_it_reads():
    """``eval`` and a shell of another machine's words."""
    for path in [*(TOP / "launch").glob("*.sh"), *(TOP / "tests").glob("*.sh")]:
        words = path.read_text().replace(";", "\n").splitlines()
        assert not [line for line in words if line.split()[:1] == ["eval"]], path


SCRIPT = "<script>alert(1)</script>"
QUOTED = '" onerror="alert(1)" x=\''


@pytest.mark.parametrize("text", [SCRIPT, QUOTED, "<img src=x onerror=alert(1)>", "&lt;script&gt;"])
def test_no_text_becomes_markup(text):
    """As content, as an attribute, in a table, as a title of the page and of a section."""
    parts = [
        element("p", text, {text: 1}.keys(), title=text),
        table(text, (text, "b"), [[text, 2]]),
        Section(text, [text]).markup(),
    ]
    page = document(text, "", *parts)
    assert text not in page.replace("<style></style>", "")
    assert Html(text) in document("", "", element("p", Html(text)))  # The control.


def test_markup_is_made_in_one_file():
    """Elsewhere, markup is put together from markup."""

    def is_markup(node: ast.AST) -> bool:
        if isinstance(node, ast.BinOp):
            return is_markup(node.left) and is_markup(node.right)
        return isinstance(node, ast.Call)

    for path in (TOP / "vlbeit_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "Html":
                assert path.name == "markup.py" or all(map(is_markup, node.args)), path
