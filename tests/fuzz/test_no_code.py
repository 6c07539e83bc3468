"""No way leads from a message to code: not in the source, and not when hostile messages are decoded."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# What turns bytes into objects or code, by the module that it comes from. '' is the language itself.
FORBIDDEN = {
    "": {"eval", "exec", "compile", "__import__", "globals", "execfile"},
    "pickle": {"*"},
    "cPickle": {"*"},
    "_pickle": {"*"},
    "cloudpickle": {"*"},
    "dill": {"*"},
    "joblib": {"*"},
    "marshal": {"*"},
    "shelve": {"*"},
    "code": {"*"},
    "codeop": {"*"},
    "ctypes": {"*"},
    "cffi": {"*"},
    "runpy": {"*"},
    "imp": {"*"},
    "pty": {"*"},
    "jsonpickle": {"*"},
    "numexpr": {"*"},
    "torch": {"load"},
    "yaml": {
        "load",
        "load_all",
        "unsafe_load",
        "unsafe_load_all",
        "full_load",
        "full_load_all",
        "Loader",
        "UnsafeLoader",
    },
    "numpy": {"load", "loads", "fromregex", "lookfor", "ctypeslib"},
    "pandas": {"read_pickle", "eval", "read_hdf", "read_feather"},
    "os": {"system", "popen", "execv", "execve", "execvp", "execl", "spawnv", "spawnl", "posix_spawn", "fork"},
    "importlib": {"*"},
    "subprocess": {"*"},
    "multiprocessing": {"*"},
    "types": {"FunctionType", "CodeType", "LambdaType"},
}
# Of the forbidden modules, what only reads what is installed.
HARMLESS = {
    "importlib.metadata",
    "importlib.metadata.version",
    "importlib.metadata.requires",
    "importlib.metadata.PackageNotFoundError",
}
# Calls that make no objects but plain ones when this keyword is written out with this value.
PLAIN = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
METHODS = {"eval", "query_eval", "read_pickle", "to_pickle", "loads_pickle", "__reduce__", "__setstate__"}

# Where one of them is used, and why no message has a say in it.
ALLOWED = {
    ("ctfed/node.py", "importlib.*"): "imports the modules of ctfed.statistics, as they lie in the image",
    ("ctfed/federation/flower/processes.py", "subprocess.*"): "starts SuperLink and SuperNode from a command line",
    ("ctfed/federation/flower/processes.py", "ctypes.*"): "lets a child end with its parent (prctl)",
    ("ctfed/cohort/table.py", "importlib.*"): "a table that ships in an installed package, one of a fixed list",
    ("ctfed/cli.py", "importlib.metadata.entry_points"): "the entry point of the server's commands, as installed",
    ("server/simulate.py", "importlib.util.find_spec"): "whether Ray is installed",
    ("ctfed/doctor_machine.py", "subprocess.*"): "the import",
    ("ctfed/doctor_machine.py", "subprocess.run"): "nvidia-smi -L, by an operator's own command",
    ("ctfed/doctor_machine.py", "subprocess.TimeoutExpired"): "an exception's name",
    ("ctfed/report/site_pdf.py", "subprocess.*"): "the import",
    ("ctfed/report/site_pdf.py", "subprocess.run"): "a browser of the machine prints a page that ctfed wrote",
    ("ctfed/report/site_pdf.py", "subprocess.TimeoutExpired"): "an exception's name",
    ("ctfed/report/site_pdf.py", "importlib.import_module"): "WeasyPrint, by its literal name",
    ("ctfed/report/site_pdf.py", "importlib.util.find_spec"): "whether WeasyPrint is installed",
    ("ctfed/tcia/download.py", "subprocess.*"): "the import",
    ("ctfed/tcia/download.py", "subprocess.run"): "s5cmd, by an operator's own command, outside any federation",
    ("server/demo.py", "importlib.util.find_spec"): "whether the libraries for images are installed",
    ("ctfed/phantom/write.py", "importlib.util.find_spec"): "whether the libraries that write DICOM are installed",
    ("ctfed/preparation/code.py", "importlib.util.find_spec"): "where ctfed's own modules lie, to hash their source",
    ("ctfed/imaging/foundation.py", "pickle.UnpicklingError"): "the error by which torch refuses all but plain tensors",
    ("ctfed/preparation/pool.py", "multiprocessing.*"): "jobs and answers between a run and processes that it started",
}


def uses(source: str) -> Iterator[tuple[str, int]]:
    """Forbidden things that a module's source names, with their lines: 'yaml.load', 'eval'."""
    tree = ast.parse(source)
    names: dict[str, str] = {}  # what a name in this module stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
                yield from _forbidden(alias.name, "*", node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from _forbidden(node.module, alias.name, node.lineno)
    plain = {
        id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call) and _makes_plain_objects(call, names)
    }
    for node in ast.walk(tree):
        if id(node) in plain:
            continue
        if isinstance(node, ast.Name) and node.id in FORBIDDEN[""] and node.id not in names:
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            dotted = _dotted(node, names)
            if dotted and "." in dotted:
                module, _, attribute = dotted.rpartition(".")
                yield from _forbidden(module, attribute, node.lineno)
            if node.attr in METHODS:
                yield f"method.{node.attr}", node.lineno
        elif isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "shell"}:
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{node.arg}=", node.value.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"getattr", "setattr", "hasattr", "vars"}:
            yield from _reflected(node)


def _forbidden(module: str, attribute: str, line: int) -> Iterator[tuple[str, int]]:
    root = module.split(".")[0]
    banned = FORBIDDEN.get(root, set())
    if ("*" in banned or attribute in banned) and f"{module}.{attribute}" not in HARMLESS:
        yield f"{module}.{attribute}", line


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else None
    return None


def _makes_plain_objects(call: ast.Call, names: dict[str, str]) -> bool:
    dotted = _dotted(call.func, names) if isinstance(call.func, ast.Attribute) else None
    keyword, wanted = PLAIN.get(dotted or "", ("", None))
    return any(
        each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is wanted
        for each in call.keywords
    )


def _reflected(call: ast.Call) -> Iterator[tuple[str, int]]:
    """An attribute of a module or a class looked up by a name that is only known when it runs."""
    name = getattr(call.func, "id", "")
    if name == "vars" or (len(call.args) > 1 and not isinstance(call.args[1], ast.Constant)):
        yield f"{name}(computed)", call.lineno


# Attributes looked up by a name that is computed: of objects of ctfed's own, by the names of their own fields.
REFLECTED = {
    "ctfed/federation/codec.py": "the fields of a registered class, by their declared names",
    "ctfed/federation/cohort.py": "the arrays in a cached table, by the names of its fields",
    "ctfed/federation/ledger.py": "the fields of an entry",
}


def modules() -> list[Path]:
    return sorted(path for package in ("ctfed", "server") for path in (PACKAGES / package).rglob("*.py"))


def allowed(path: str, found: str) -> bool:
    for (where, what), _ in ALLOWED.items():
        if path == where and (found == what or (what.endswith(".*") and found.startswith(what[:-1]))):
            return True
    return False


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGES)))
def test_a_module_makes_no_code_of_data(path: Path) -> None:
    where = str(path.relative_to(PACKAGES))
    found = [(what, line) for what, line in uses(path.read_text(encoding="utf-8")) if not allowed(where, what)]
    if where in REFLECTED or not border_module(where):
        found = [(what, line) for what, line in found if "(computed)" not in what]
    assert not found, f"{where}: {found}"


def border_module(where: str) -> bool:
    """Whether a module takes messages or files in; reports and statistics get numbers that were checked."""
    return where.startswith(("ctfed/federation/", "ctfed/config.py", "ctfed/node.py", "server/journal.py", "server/tr"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "pickle.*"),
        ("from pickle import loads as read", "pickle.loads"),
        ("import numpy as np\nnp.load(path)", "numpy.load"),
        ("import numpy as np\nnp.fromfile(path, allow_pickle=True)", "allow_pickle="),
        ("from yaml import load", "yaml.load"),
        ("import yaml\nyaml.load(text, Loader=yaml.SafeLoader)", "yaml.load"),
        ("import yaml as y\ny.unsafe_load(text)", "yaml.unsafe_load"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
        ("import builtins\n__import__(name)", "__import__"),
        ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
        ("from os import system", "os.system"),
        ("import os\nos.popen(text)", "os.popen"),
        ("import subprocess as s\ns.run(text)", "subprocess.run"),
        ("run(text, shell=True)", "shell="),
        ("import pandas as pd\npd.read_pickle(path)", "pandas.read_pickle"),
        ("frame.eval(text)", "method.eval"),
        ("getattr(module, name)(text)", "getattr(computed)"),
        ("import torch\ntorch.load(path)", "torch.load"),
        ("import torch\ntorch.load(path, weights_only=False)", "torch.load"),
        ("import torch\ntorch.load(path, weights_only=trusted)", "torch.load"),
        ("import torch\ntorch.load(path, weights_only=True)\nread = torch.load", "torch.load"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "numpy.load"),
        ("from importlib import metadata\nmetadata.entry_points()", "importlib.metadata.entry_points"),
        ("from importlib.metadata import *", "importlib.metadata.*"),
        ("import ctypes", "ctypes.*"),
    ],
)
def test_what_makes_code_of_data_is_found(source: str, found: str) -> None:
    assert found in [what for what, _ in uses(source)]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nwith np.load(path, allow_pickle=False) as file: pass",
        "from importlib import metadata\nmetadata.version(name)",
        "from importlib.metadata import PackageNotFoundError, version",
    ],
)
def test_what_makes_plain_objects_alone_may_be_used(source: str) -> None:
    assert list(uses(source)) == []


def test_no_message_reaches_the_imaging_pipeline() -> None:
    """What unpickles between a run's own processes, or opens weights, is no part of a site's answers or the server."""
    where = [PACKAGES / "ctfed" / "node.py", PACKAGES / "ctfed" / "federation", PACKAGES / "server"]
    files = [file for path in where for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    parts = re.compile(r"\bctfed\.(prepare|preparation|imaging|phantom)\b")
    found = {str(file.relative_to(PACKAGES)) for file in files if parts.search(file.read_text(encoding="utf-8"))}
    assert found <= {"server/demo.py"}  # which makes and prepares phantoms, and asks nobody


def test_what_is_allowed_is_there() -> None:
    """An exception that nobody needs any more is taken off the list."""
    for where, what in ALLOWED:
        found = [one for one, _ in uses((PACKAGES / where).read_text(encoding="utf-8"))]
        assert any(allowed(where, one) for one in found), f"{where} does not use {what}"
    for where in REFLECTED:
        assert any("(computed)" in one for one, _ in uses((PACKAGES / where).read_text(encoding="utf-8"))), where


def test_hostile_messages_run_no_code_and_write_no_file() -> None:
    """In a process of its own, because an audit hook stays for ever: see audit_border.py."""
    command = [sys.executable, "-W", "ignore", str(HERE / "audit_border.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["events"] == {}
    assert said["outside"] == []
    assert said["messages"] >= 2000
    assert said["understood"] >= 200
    assert said["control"] == {"compile": 1, "exec": 1, "pickle.find_class": 1, "open": 1, "subprocess.Popen": 1}
