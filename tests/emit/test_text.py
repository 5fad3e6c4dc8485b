"""The look of emitted text: printer, wrapping, templates, and that the same recipe gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from irrepc.algebra.recipe import read_product
from irrepc.algebra.surd import ONE, Surd
from irrepc.emit.module import Entry, check_backend, emit
from irrepc.emit.printer import WIDTH, Constants, assignment, expression, variable
from irrepc.errors import BackendError
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term

PROGRAM = """
import hashlib
from irrepc.emit.module import BACKENDS, Entry, compose
from tests.kernels import RECIPES
made = [compose("A.", (Entry("kernel", RECIPES[n]),), b, "c") for n in RECIPES for b in BACKENDS]
text = "".join(m.text + "".join(text for _, text in m.companions) for m in made)
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_terms_with_one_size_of_coefficient_are_taken_together() -> None:
    c = Surd.root(2)
    x, y, z = (Ref("x", i) for i in range(3))
    terms = (Term(c, (x, y)), Term(-c, (y, z)), Term(-ONE, (z,)), Term(Surd.of(3), ()))
    o = Operand("o", ((),))
    kernel = Kernel("k", (Operand("x", ((),) * 3),), (o,), (Equation(Ref("o", 0), terms),))
    constants = Constants.of((kernel,))
    assert constants.lines() == ("C0 = 1.4142135623730951  # √2", "C1 = 3.0  # 3")
    assert expression(terms, constants, variable, lambda f: 0) == "C0 * (x0 * x1 - x1 * x2) - x2 + C1"
    assert expression((), constants, variable, lambda f: 0) == "0.0"


def test_names_cannot_clash() -> None:
    assert variable(Ref("a", 20)) != variable(Ref("a2", 0)) == "a2_0"


def test_long_sums_are_wrapped_and_stay_the_same_sum() -> None:
    right = " + ".join(f"x{i} * y{i}" for i in range(40))
    lines = assignment("o0", "=", right, "a note")
    assert len(lines) > 2
    assert all(len(line) <= WIDTH for line in lines)
    values = {f"{n}{i}": i + 1 for n in "xy" for i in range(40)}
    exec("\n".join(lines), values)
    assert values["o0"] == eval(right, values)


def test_the_same_bytes_under_two_hash_seeds() -> None:
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_stranger_can_follow_the_text() -> None:
    """The cross product over √2: the banner says where it is from, every component says what it is."""
    text = emit("A coupling.", (Entry("cross", read_product("1o x 1o -> 1e")),), "torch", "irrepc show '1o x 1o -> 1e'")
    assert "irrepc show '1o x 1o -> 1e'" in text
    assert "C0 = 0.7071067811865476  # √2/2" not in text, "√2/2 would be another normalisation: |w3j| = 1 gives √6/6"
    assert "C0 = 0.408248290463863  # √6/6" in text
    assert "# 1e m=-1" in text
    assert "import irrepc" not in text and "from irrepc" not in text
    assert not any(line.endswith(" ") for line in text.split("\n"))
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_unknown_backends_are_named() -> None:
    with pytest.raises(BackendError, match="got 'fortran'; expected one of torch, numba, llvm"):
        check_backend("fortran")
