"""The emitted package: its parts and their limit, its bytes, its independence and its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from irrepc.algebra.recipe import HarmonicsRecipe, read_product
from irrepc.emit.manifest import NAME
from irrepc.emit.module import BACKENDS
from irrepc.emit.package import assemble, jobs, package
from irrepc.emit.plan import LIMIT, plan
from irrepc.emit.sources import TRAVELLING, source_digest
from irrepc.errors import BackendError, IrrepsError, SizeError
from irrepc.frontend.clebsch_gordan import triangles, w3j
from irrepc.frontend.proof import Proof
from irrepc.runtime import store

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["spherical_harmonics", "wigner_d", "tensor_product", "convolution", "linear", "gate", "norm"]
FEATURES = "3x0e+2x0o+2x1o+1x1e"
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {folder!r})
"""


def write(files: dict[str, str], folder: Path) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def run_blocked(code: str, folder: Path, *blocked: str) -> str:
    """Run code in a fresh interpreter where the emitted packages can be imported and some others cannot."""
    own = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    whole = BLOCK.format(blocked=set(blocked), folder=str(folder)) + code
    command = [sys.executable, "-c", whole]
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of lmax 1 and features of both parities and three multiplicities."""
    folder = tmp_path_factory.mktemp("emitted")
    write(package(1, irreps=FEATURES), folder / "lmax1")
    return folder


# ── what is in it ────────────────────────────────────────────────────────────────────────────────


def test_cuda_modules_have_their_text_and_one_compiler_beside_them() -> None:
    files = package(0, backends=("cuda",))
    for part in PARTS:
        assert 'extern "C" __global__ void' in files[f"cuda/{part}.cu"]
        assert '_beside("nvrtc.py")' in files[f"cuda/{part}.py"]
    assert files["cuda/nvrtc.py"] == (ROOT / "irrepc" / "runtime" / "nvrtc.py").read_text(encoding="utf-8")


def test_a_package_holds_every_part_for_every_backend(emitted: Path) -> None:
    content = json.loads((emitted / "lmax1" / NAME).read_text())
    kernels = {f"{b}/{p}.py" for b in ("torch", "numba") for p in PARTS}
    inits = {"__init__.py", "torch/__init__.py", "numba/__init__.py"}
    assert set(content["sha256"]) == kernels | inits | {"clebsch_gordan.py", "layers.py", "REPORT.md", *TRAVELLING}
    assert content["source"] == source_digest()
    assert content["omitted"] == {}
    assert content["command"] == f'irrepc generate --lmax 1 --irreps "{FEATURES}"'
    assert {p["name"] for p in content["proofs"]} >= {"harmonicity", "coupling invariance", "equivariance"}
    for kernel in content["kernels"]:
        for backend, path in kernel["files"].items():
            text = (emitted / "lmax1" / path).read_text()
            assert kernel["recipe"] in text
            assert f"kernel {kernel['hash']}" in text
            assert f"def {kernel['function']}_vjp_vjp(" in text
            assert {line[1] for line in kernel["cost"][backend]} == {0, 1, 2}


def test_the_operators_are_the_runtimes_own(emitted: Path) -> None:
    for name in TRAVELLING:
        text = (emitted / "lmax1" / name).read_text()
        assert text.endswith((ROOT / "irrepc" / "runtime" / name).read_text())
        assert text.startswith("# ──")


def test_the_report_names_what_was_derived_proved_and_emitted(emitted: Path) -> None:
    text = (emitted / "lmax1" / "REPORT.md").read_text()
    assert "| orthonormality |" in text
    assert "`convolution_vjp_vjp`" in text
    assert "15 of 55 couplings" not in text
    assert f"{sum(len(w3j(*t)) for t in ((0, 0, 0), (0, 1, 1), (1, 1, 1)))} of 37 couplings" in text
    assert "Left out" not in text


def test_roofline_bytes_by_hand(emitted: Path) -> None:
    """Forward harmonics of degree 1 in float32: 3 numbers in, 4 out."""
    lines = (emitted / "lmax1" / "REPORT.md").read_text().split("\n")
    (row,) = [line for line in lines if line.startswith("| `spherical_harmonics` |")]
    assert [cell.strip() for cell in row.split("|")][5:7] == [str(4 * (3 + 4)), "0"]


@pytest.mark.parametrize("backends", [("torch",), ("numba",)])
def test_one_backend_alone(backends: tuple[str, ...]) -> None:
    files = package(0, backends=backends)
    assert {path.split("/")[0] for path in files if "/" in path} == set(backends)
    assert ("layers.py" in files) == (backends == ("torch",))
    if "layers.py" in files:
        assert 'BACKENDS = ("torch",)' in files["layers.py"]


def test_the_shelf_serves_what_the_manifest_says(emitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "shelf_folder", lambda: emitted)
    store._shelf_index.cache_clear()
    try:
        for recipe, function in (
            (HarmonicsRecipe(1), "spherical_harmonics"),
            (read_product("1o x 1o -> 1e"), "tensor_product_1o_1o_1e"),
        ):
            for backend in ("torch", "numba"):
                found = store._on_shelf(recipe, backend)
                assert found is not None
                assert found[0].is_relative_to(emitted)
                assert found[2] == function
    finally:
        store._shelf_index.cache_clear()


# ── limits and bad input ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lmax", "left_out"),
    [
        (4, []),
        (5, []),
        (6, ["tensor_product", "convolution"]),
        (8, ["tensor_product", "convolution"]),
        (9, ["wigner_d", "tensor_product", "convolution", "linear"]),
    ],
)
def test_large_parts_are_left_out(lmax: int, left_out: list[str]) -> None:
    planned = plan(lmax)
    assert [p.name for p in planned.omitted] == left_out
    assert [p.name for p in planned.parts] == [name for name in PARTS if name not in left_out]
    assert all(p.terms > LIMIT for p in planned.omitted)
    assert planned.tables


def test_what_is_left_out_is_said_and_can_be_asked_for() -> None:
    planned = plan(2, limit=1000)
    assert [p.name for p in planned.omitted] == ["wigner_d", "convolution"]
    files = assemble(planned, {k: m for job in jobs(planned) for k, m in job.run().items()}, [Proof("p", "s", 2, 1)])
    for gone in planned.omitted:
        assert f"| {gone.name} | {gone.terms:,} | `--limit {gone.terms}` |" in files["REPORT.md"]
        assert f"torch/{gone.name}.py" not in files
        assert gone.name not in {p.name for p in plan(2, limit=gone.terms).omitted}
    assert json.loads(files[NAME])["omitted"] == {p.name: p.terms for p in planned.omitted}
    assert "class Convolution" not in files["layers.py"]
    assert "class Linear" in files["layers.py"]
    compile(files["layers.py"], "layers.py", "exec")


def test_the_estimate_is_the_size_of_products() -> None:
    """Up to accidental zeros of the couplings, at most a twentieth."""
    planned = plan(3)
    for name in ("tensor_product", "convolution"):
        part = planned.part(name)
        assert part is not None
        (job,) = [job for job in jobs(planned) if job.part.name == name]
        terms = sum(t.terms for t in job.run()[name, "torch"].traffic)
        assert terms <= part.terms <= 1.05 * terms


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"lmax": -1}, IrrepsError, "got -1; expected an integer >= 0"),
        ({"lmax": 1, "irreps": "16x0g"}, IrrepsError, "got '16x0g'"),
        ({"lmax": 1, "irreps": ""}, IrrepsError, "expected at least one block"),
        ({"lmax": 1, "irreps": "0x0e"}, IrrepsError, "expected at least one block"),
        ({"lmax": 1, "backends": ("fortran",)}, BackendError, "expected one of torch"),
        ({"lmax": 1, "backends": ()}, BackendError, "got none"),
        ({"lmax": 1, "backends": ("torch", "torch")}, BackendError, "once"),
        ({"lmax": 8, "irreps": "4x0e+4x7o+4x8e"}, SizeError, "at most 40,000 in one module; do: ask for --limit"),
        ({"lmax": 60}, SizeError, "spherical_harmonics of about 96,746 terms"),
        ({"lmax": 10**6}, SizeError, "spherical_harmonics"),
    ],
)
def test_bad_requests(arguments: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says.replace("?", r"\?")):
        package(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("irreps", "outputs"),
    [
        (None, "0e 1o 2e"),
        ("16x0e", "0e 1o 2e"),
        ("16x0e+8x1o", "0e 1o 2e"),
        ("8x0e+8x0o+8x1o+8x1e", "0e 0o 1e 1o 2e 2o"),
        ("4x0e+4x3o", "0e 1o 2e 3o"),
    ],
)
def test_paths_go_to_the_degrees_asked_for(irreps: str | None, outputs: str) -> None:
    messages = plan(2, irreps=irreps).messages
    assert " ".join(sorted({str(b.irrep) for b in messages})) == outputs


# ── the same bytes, and on their own feet ────────────────────────────────────────────────────────


def test_two_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import hashlib, json\nfrom irrepc.emit.package import package\n"
        f"files = package(1, irreps={FEATURES!r}, backends={BACKENDS!r})\n"
        "print(hashlib.sha256(json.dumps(files).encode()).hexdigest())"
    )
    sums = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        sums.add(done.stdout)
    assert len(sums) == 1


def test_a_package_is_imported_without_anything(emitted: Path) -> None:
    code = "import lmax1; print(lmax1.LMAX, 'numpy' in sys.modules)"
    assert run_blocked(code, emitted, "irrepc", "torch", "numba", "numpy").split() == ["1", "False"]


def test_numba_modules_run_without_irrepc_and_torch(emitted: Path) -> None:
    code = """
import numpy as np
from lmax1.numba.spherical_harmonics import spherical_harmonics, spherical_harmonics_vjp
from lmax1.numba import convolution, gate, linear, norm, tensor_product, wigner_d
from lmax1.clebsch_gordan import clebsch_gordan
r = np.array([[0.0, 1.0, 0.0]])
value, gradient = spherical_harmonics(r), spherical_harmonics_vjp(r, np.ones((1, 4)))
print(np.abs(value - [1, 0, 3**0.5, 0]).max(), np.abs(gradient - 3**0.5).max(), clebsch_gordan(1, 1, 1)[0, 1, 2])
"""
    error, other, coupling = map(float, run_blocked(code, emitted, "irrepc", "torch").split())
    assert error < 1e-15
    assert other < 1e-15
    assert coupling == 6**-0.5


def test_torch_modules_run_without_irrepc_and_numba(emitted: Path) -> None:
    code = """
import torch
from lmax1.torch import convolution, gate, linear, norm, spherical_harmonics, tensor_product, wigner_d
print(wigner_d.wigner_d(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))[0, 1:].view(3, 3).equal(torch.eye(3)))
"""
    assert run_blocked(code, emitted, "irrepc", "numba").split() == ["True"]


def test_couplings_need_numpy_only(emitted: Path) -> None:
    assert run_blocked("import lmax1.clebsch_gordan", emitted, "irrepc", "numba", "torch") == ""


# ── the table of couplings ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def table() -> dict[str, object]:
    text = package(3, backends=("torch",), limit=1000)["clebsch_gordan.py"]
    names: dict[str, object] = {}
    exec(compile(text, "clebsch_gordan.py", "exec"), names)
    return names


@pytest.mark.parametrize("degrees", [t for t in triangles(3) if t[0] <= t[1] <= t[2]])
def test_couplings_in_any_order(degrees: tuple[int, int, int], table: dict[str, object]) -> None:
    for order in set(permutations(degrees)):
        coupling = w3j(*order)
        dense = np.zeros(tuple(2 * l + 1 for l in order))
        for place, value in coupling.items():
            dense[place] = float(value)
        assert (table["clebsch_gordan"](*order) == dense).all()  # type: ignore[operator]
        exact = table["exact"](*order)  # type: ignore[operator]
        assert set(exact) == set(coupling)
        for place, (sign, num, den) in exact.items():
            square = coupling[place].squared()
            assert sign == coupling[place].sign
            assert str(square) == (f"{num}/{den}" if den > 1 else str(num))


@pytest.mark.parametrize("degrees", [(1, 1, 3), (3, 3, 4), (-1, 0, 1)])
def test_couplings_that_are_not_there(degrees: tuple[int, int, int], table: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        table["clebsch_gordan"](*degrees)  # type: ignore[operator]
