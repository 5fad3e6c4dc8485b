"""Kernels without torch: generate a package and use its numba modules on NumPy arrays where torch is out of reach."""

import sys

sys.modules["torch"] = None  # type: ignore[assignment]  # from here on `import torch` fails, in every module

import tempfile  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from irrepc.emit.package import package  # noqa: E402

# A package is a dictionary of relative paths and texts, proved before it is emitted; the command line's
# `irrepc generate --lmax 2 --backend numba` writes the same files.
files = package(2, backends=("numba",))
folder = Path(tempfile.mkdtemp())
for name, text in files.items():
    path = folder / "lmax2" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
print(f"{len(files)} files, {sum(map(len, files.values())) / 1e3:.0f} kB")

# What was emitted needs NumPy and numba alone: not torch, and not irrepc.
for name in [name for name in sys.modules if name.split(".")[0] == "irrepc"]:
    sys.modules[name] = None  # type: ignore[assignment]
sys.path.insert(0, str(folder))
harmonics = import_module("lmax2.numba.spherical_harmonics")
gate = import_module("lmax2.numba.gate")

# Harmonics of directions, and their derivative.
generator = np.random.default_rng(0)
r = generator.normal(size=(5, 3))
r /= np.linalg.norm(r, axis=1, keepdims=True)
y = harmonics.spherical_harmonics(r)
print("Y of", np.array2string(r[0], precision=3), "is", np.array2string(y[0], precision=3))
assert np.allclose((y[:, 4:9] ** 2).sum(1), 5), "component normalisation: |Y_2|² = 5"
d_r = harmonics.spherical_harmonics_vjp(r, np.ones_like(y))
print("the gradient of ΣY is", np.array2string(d_r[0], precision=3))

# A gate multiplies each of 4 channels of 0e, 1o and 2e by a number.
u = 4
x, g = generator.normal(size=(5, 9 * u)), generator.normal(size=(5, 3 * u))
o = gate.gate(x, g, u)
print(f"gate: {x.shape} by {g.shape} -> {o.shape}")
assert np.allclose(o[:, :u], x[:, :u] * g[:, :u])
assert "torch" not in {name for name, module in sys.modules.items() if module is not None}
print("torch was never imported")
