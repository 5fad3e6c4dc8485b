"""The floors: a file of irrepc imports from lower floors only, and each third-party package has its address.

Imports are read off the syntax tree, those inside functions and those by name (`import_module`, `require`) included.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import irrepc

ROOT = Path(__file__).resolve().parents[1]


class Floor(NamedTuple):
    """How high a folder stands, and which third-party packages it may import."""

    height: int
    packages: tuple[str, ...]


ARRAYS = ("numpy", "torch")
# timed beside our kernels, where they are installed
PEERS = ("e3nn", "sphericart", "openequivariance", "cuequivariance", "cuequivariance_torch", "mace")
FLOORS = {
    "errors": Floor(0, ()),
    "algebra": Floor(1, ()),
    "ir": Floor(2, ()),
    "frontend": Floor(3, ("sympy",)),
    "emit": Floor(4, ("jinja2",)),
    "runtime": Floor(5, (*ARRAYS, "numba", "llvmlite", "filelock", "platformdirs", "safetensors")),
    "nn": Floor(6, (*ARRAYS, "vesin")),
    "models": Floor(7, ARRAYS),
    "interop": Floor(8, (*ARRAYS, "ase", "e3nn")),
    "train": Floor(8, (*ARRAYS, "ase", "lightning", "matplotlib", "rich", "yaml")),
    "deploy": Floor(8, (*ARRAYS, "llvmlite", "filelock")),
    "commands": Floor(9, (*ARRAYS, "numba", "rich", "filelock", "ase", "matplotlib", *PEERS)),
    "cli": Floor(9, ("click", "rich")),
    "cli_atoms": Floor(9, ("click", "rich")),
    "e3nn": Floor(9, ()),
    "__init__": Floor(10, ()),
    "__main__": Floor(10, ()),
}
WANTED = ("algebra", "ir", "frontend", "emit", "runtime", "nn", "models", "interop", "train", "deploy")
# imported only inside the functions that show formulas, so that nothing else pays for it
LAZY = ("sympy",)
# copied into emitted packages: they import each other and nothing else of irrepc
TRAVELLING = (
    "runtime/ops.py",
    "runtime/arrays.py",
    "runtime/operands.py",
    "runtime/tensors.py",
    "runtime/nvrtc.py",
)
# an emitted file stands alone: these and the standard library
EMITTED = ("torch", "numpy", "numba", "llvmlite")


class Import(NamedTuple):
    """One imported name: its full dotted name, the line, and whether it runs when the module is imported."""

    name: str
    line: int
    eager: bool


def imports(source: str, package: str) -> Iterator[Import]:
    """Yield what `source`, a module of `package` (dotted, "" for none), imports.

    `from a import b` yields "a.b": whether b is a module does not matter to the floors.
    """
    tree = ast.parse(source)
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        for name in _imported(node, package):
            yield Import(name, getattr(node, "lineno", 0), id(node) not in inside)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            parts = package.split(".")
            start = parts[: len(parts) - level + 1] if level else []
            prefix = ".".join([*start, *([module] if module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in names)
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if called in ("import_module", "__import__", "require"):
                yield name


def broken_rules(path: str, source: str) -> list[str]:
    """Say every way in which the module at `path` (from the package's folder, "ir/vjp.py") breaks the floors."""
    own = path.removesuffix(".py").split("/")[0]
    if own not in FLOORS:
        return [f"irrepc/{path} stands on no floor; expected one of {', '.join(FLOORS)}"]
    package = ".".join(["irrepc", *path.split("/")[:-1]])
    found = []
    for name, line, eager in imports(source, package):
        top, *rest = name.split(".")
        where = f"irrepc/{path}:{line} imports {name}"
        if top == "irrepc":
            other = rest[0] if rest else ""
            if path in TRAVELLING:
                if "/".join(rest[:2]) + ".py" not in TRAVELLING:
                    found.append(f"{where}: this file is copied into emitted packages and must stand alone")
            elif other == "__version__":
                continue
            elif other not in FLOORS:
                found.append(f"{where}: not a floor; import from the module that defines it")
            elif FLOORS[other].height > FLOORS[own].height:
                found.append(f"{where}: floor {FLOORS[own].height} may not look up to floor {FLOORS[other].height}")
        elif top in sys.stdlib_module_names:
            continue
        elif top not in FLOORS[own].packages:
            allowed = ", ".join(FLOORS[own].packages) or "none"
            found.append(f"{where}: third parties of {own} are {allowed}")
        elif top in LAZY and eager:
            found.append(f"{where}: expected inside the function that needs it")
    return found


def leaning_imports(source: str) -> list[str]:
    """Say what an emitted module imports beyond the standard library, its siblings and EMITTED."""
    named = [i for i in imports(source, "emitted.package") if not i.name.startswith("emitted.")]
    return [
        f"line {line} imports {name}"
        for name, line, _ in named
        if name.split(".")[0] not in sys.stdlib_module_names and name.split(".")[0] not in EMITTED
    ]


def modules_after(statement: str) -> set[str]:
    """Run `statement` in a fresh interpreter; return the top-level modules it left loaded."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def python_files(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.rglob("*.py") if not {"_templates", "_generated"} & set(p.parts))


def test_every_floor_is_there() -> None:
    missing = [name for name in WANTED if not (ROOT / "irrepc" / name / "__init__.py").is_file()]
    missing += [f"{name}.py" for name in ("errors", "cli") if not (ROOT / "irrepc" / f"{name}.py").is_file()]
    assert not missing, f"irrepc/ lacks {', '.join(missing)}"


def test_imports_look_down_only() -> None:
    package = ROOT / "irrepc"
    found = []
    for path in python_files(package):
        found += broken_rules(path.relative_to(package).as_posix(), path.read_text())
    assert not found, "\n".join(found)


def test_the_shelf_stands_alone() -> None:
    shelf = ROOT / "generated"
    files = python_files(shelf)
    assert files, "generated/ holds no emitted module; do: make generated"
    found = [f"{path.relative_to(ROOT)}: {text}" for path in files for text in leaning_imports(path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("statement", ["import irrepc", "import irrepc.ir.kernel", "import irrepc.cli"])
def test_importing_loads_neither_torch_nor_sympy(statement: str) -> None:
    assert not {"torch", "sympy"} & modules_after(statement)


@pytest.mark.parametrize("name", irrepc.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(irrepc, name) is not None
    assert name in dir(irrepc)


def test_public_table_names_modules_of_irrepc() -> None:
    for target in irrepc._PUBLIC.values():
        module = import_module(target.partition(":")[0])
        assert module.__name__.startswith("irrepc.")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Irrepps'; expected one of"):
        _ = irrepc.Irrepps


# ── the rules themselves can fail ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "source", "says"),
    [
        ("ir/vjp.py", "from irrepc.frontend import harmonics", "floor 2 may not look up to floor 3"),
        ("ir/vjp.py", "from ..frontend.harmonics import Y", "floor 2 may not look up to floor 3"),
        ("ir/vjp.py", "def f():\n    import irrepc.emit.views", "floor 2 may not look up to floor 4"),
        ("ir/vjp.py", "import importlib\nimportlib.import_module('irrepc.nn')", "floor 2 may not look up to floor 6"),
        ("ir/vjp.py", "import numpy as np", "third parties of ir are none"),
        ("frontend/wigner.py", "import sympy", "expected inside the function"),
        ("frontend/wigner.py", "class D:\n    import sympy", "expected inside the function"),
        ("frontend/wigner.py", "def f():\n    import torch", "third parties of frontend are sympy"),
        ("emit/views.py", "from irrepc import Kernel", "not a floor"),
        ("runtime/ops.py", "from irrepc.errors import KernelError", "must stand alone"),
        ("runtime/ops.py", "from .store import load", "must stand alone"),
        ("interop/ase.py", "from irrepc.errors import require\nrequire('vesin', 'ase')", "third parties of interop"),
        ("nn/linear.py", "import irrepc", "not a floor"),
        ("nn/linear.py", "from .. import cli", "floor 6 may not look up to floor 9"),
        ("tools/x.py", "", "stands on no floor"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, says: str) -> None:
    found = broken_rules(path, source)
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/vjp.py", "from math import sqrt\nfrom irrepc.algebra.surd import Surd\nfrom . import kernel"),
        ("frontend/wigner.py", "def f():\n    import sympy"),
        ("runtime/ops.py", "from .operands import Signature"),
        ("runtime/ops.py", "import torch\nfrom collections.abc import Callable"),
        ("interop/ase.py", "from irrepc.errors import require\nrequire('ase.io', 'ase')"),
        ("emit/banner.py", "from irrepc import __version__"),
        ("train/data.py", "from irrepc.interop.ase import graph"),
    ],
)
def test_a_kept_rule_is_let_through(path: str, source: str) -> None:
    assert broken_rules(path, source) == []


def test_an_emitted_module_that_leans_on_irrepc_is_found() -> None:
    assert leaning_imports("import torch\nfrom irrepc.runtime import ops\nimport e3nn") == [
        "line 2 imports irrepc.runtime.ops",
        "line 3 imports e3nn",
    ]
    assert leaning_imports("import math\nimport numpy as np\nfrom .ops import register\nfrom ..torch import x") == []


def test_a_loaded_module_is_seen() -> None:
    assert "sympy" in modules_after("import sympy")
