"""A first kernel: derive a coupling exactly, emit it as code, and call the code from NumPy."""

import numpy as np

from irrepc import Surd
from irrepc.algebra.recipe import read_product
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.frontend.formulas import show
from irrepc.runtime.store import load_module

# 1. Exact numbers. The product of two vectors holds a symmetric, traceless matrix, l = 2. Its couplings are square
#    roots of fractions, and stay so until code is printed.
coupling = w3j(1, 1, 2)
print(f"w3j(1, 1, 2): {len(coupling)} of 45 entries are not zero; their squares sum to exactly", end=" ")
print(sum((value * value for value in coupling.values()), Surd()), "\n")
print(show("w3j 1 1 2"), "\n")

# 2. Code. A recipe names the kernel; the store derives it, emits a module into the cache and imports it. "u" stands for
#    the channels: one text serves any number of them.
recipe = read_product("1o x 1o -> 2e")
module, name = load_module(recipe, "numba")
product = getattr(module, name)
print(f"{recipe}\nis {name} in {module.__file__}\n")

# 3. Numbers. Rows are (component, channel), channels fast: x holds 16 vectors in each row, y one.
rows, u = 1000, 16
generator = np.random.default_rng(0)
x, y = generator.normal(size=(rows, 3 * u)), generator.normal(size=(rows, 3))
o = product(x, y, u)

# 4. The same sum, written out with the exact numbers as an array.
dense = np.zeros((3, 3, 5))
for (i, j, k), value in coupling.items():
    dense[i, j, k] = float(value)
expected = np.einsum("ijk,niu,nj->nku", dense, x.reshape(rows, 3, u), y)
difference = np.abs(o.reshape(rows, 5, u) - expected).max()
print(f"{rows} rows of {u} channels: largest difference to the dense sum {difference:.1e}")
assert difference < 1e-14

# 5. Derivatives come from the same equations: product_vjp is in the same module.
d_x, d_y = getattr(module, f"{name}_vjp")(x, y, np.ones_like(o), u)
step = 1e-6 * generator.normal(size=y.shape)
change = (product(x, y + step, u) - product(x, y - step, u)).sum() / 2
print(f"a change of y moves the sum of o by {change:.6e}; the derivative says {(d_y * step).sum():.6e}")
assert np.isclose(change, (d_y * step).sum())
