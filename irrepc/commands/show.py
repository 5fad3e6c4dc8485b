"""Show: formulas, IR, costs after each pass, or the emitted text of anything with a name."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import (
    GateRecipe,
    HarmonicsRecipe,
    LinearRecipe,
    NormRecipe,
    ProductRecipe,
    Recipe,
    WignerRecipe,
    labels,
    read_product,
)
from irrepc.emit.module import BACKENDS, ORDERS, Entry, compose, kernels
from irrepc.emit.plan import plan, product_recipe
from irrepc.emit.report import per_channel
from irrepc.errors import RecipeError
from irrepc.frontend.formulas import show as formulas
from irrepc.ir.block import schedule
from irrepc.ir.kernel import Kernel
from irrepc.ir.passes import PASSES
from irrepc.ir.text import text as ir_text

VIEWS = ("formula", "ir", "passes", *BACKENDS)
EXAMPLES = "'1o x 1o -> 1e', 'Y 3', 'CG 1 1 2', 'D 2', 'convolution 16x0e+16x1o', 'linear 16x0e+8x1o'"
ANY_SIZE = 10**9
_DEGREES = re.compile(r"(Y|D|CG|w3j)((?:\s+[+-]?\d+)+)\s*")
_GLOBAL = re.compile(r"(?:^// [^\n]*\n)+#ifdef WITH_(\w+)\n.*?^#endif$", re.MULTILINE | re.DOTALL)
"""A kernel of CUDA text, with what is said above it."""
_FEATURES = re.compile(r"(convolution|linear|gate|norm)\s+(\S[^-]*?)\s*(?:->\s*(\S.*?)\s*)?")


def show(request: str, view: str | None = None, order: int | None = None, latex: bool = False) -> str:
    """The text to print.

    request  a product of irreps, "Y l [m]", "D l", "CG l1 l2 l3", "w3j l1 l2 l3", or one of convolution, linear, gate,
             norm with irreps (and for linear, where wanted, "-> irreps")
    view     one of VIEWS; None: the formula where there is one, else the IR
    order    0, 1 or 2: forward, VJP, VJP of the VJP; None: 0, or for a backend the whole module
    Raises RecipeError for a request that names nothing, IrrepsError for impossible irreps.
    """
    recipe, formula = read_request(request)
    view = view or ("formula" if formula else "ir")
    if view == "formula":
        if formula is None:
            others = ", ".join(v for v in VIEWS if v != "formula")
            raise RecipeError(f"show: got formula for {request!r}; expected one of {others} for maps of features")
        return formulas(formula, latex)
    if latex:
        raise RecipeError(f"show: got LaTeX of the view {view!r}; expected it with formulas only")
    entry = Entry(recipe.name, recipe)
    if view in BACKENDS:
        return _emitted(entry, view, order)
    kernel = kernels(entry)[order or 0]
    return ir_text(kernel).rstrip() if view == "ir" else passes_text(kernel)


def read_request(text: str) -> tuple[Recipe, str | None]:
    """The recipe that a request names, and the text of its formula where there is one."""
    if degrees := _DEGREES.fullmatch(text):
        return _of_degrees(degrees[1], [int(word) for word in degrees[2].split()], text), text
    if features := _FEATURES.fullmatch(text):
        return _of_features(features[1], features[2], features[3], text), None
    if "->" in text:
        recipe = read_product(text.replace("→", "->"))
        path = (recipe.left[0].irrep.l, recipe.right[0].irrep.l, recipe.out[0].irrep.l)
        return recipe, "w3j {} {} {}".format(*path)
    raise RecipeError(f"show: got {text!r}; expected for instance {EXAMPLES}")


def passes_text(kernel: Kernel) -> str:
    """The size and cost of a kernel after each pass."""
    rows: list[tuple[str, ...]] = [("pass", "equations", "terms", "mul", "add", "load", "store")]
    steps = [("derived", kernel)]
    for rewrite in PASSES:
        steps.append((rewrite.__name__, rewrite(steps[-1][1])))
    for name, step in steps:
        cost = schedule(step).cost
        counts = ([(a, getattr(c, kind)) for a, c in cost.items()] for kind in ("mul", "add", "load", "store"))
        rows.append((name, str(len(step.equations)), str(step.size), *map(per_channel, counts)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join((f"{kernel.name}: {kernel.doc}", *lines))


def _of_degrees(word: str, numbers: list[int], text: str) -> Recipe:
    match word, numbers:
        case "Y", [l, *_] if len(numbers) < 3:
            return HarmonicsRecipe(l)
        case "D", [l]:
            return WignerRecipe(l)
        case "CG" | "w3j", [l1, l2, l3]:
            # raises IrrepsError in the formula for degrees that do not couple, RecipeError here
            return replace(product_recipe(l1, l2, l3), component=word == "CG")
    raise RecipeError(f"show: got {text!r}; expected for instance {EXAMPLES}")


def _of_features(word: str, irreps: str, target: str | None, text: str) -> Recipe:
    if target is not None and word != "linear":
        raise RecipeError(f"show: got {text!r}; expected '->' with linear only")
    left, _ = labels(Irreps.of(irreps), "u")
    match word:
        case "convolution":
            part = plan(Irreps.of(irreps).lmax, irreps=irreps, limit=ANY_SIZE).part("convolution")
            recipe = part.entries[0].recipe if part is not None else None
            if isinstance(recipe, ProductRecipe):
                return recipe
            raise RecipeError(f"show: got {text!r}; expected irreps with a convolution")
        case "linear":
            return LinearRecipe(left, labels(Irreps.of(target or irreps), "v")[0])
        case "gate":
            return GateRecipe(left)
        case _:
            return NormRecipe(left)


def _emitted(entry: Entry, backend: str, order: int | None) -> str:
    """The module, or the functions of one order in it."""
    module = compose(f"{entry.name}.", (entry,), backend, "irrepc show")
    if backend == "llvm":
        kernels_text = module.companions[0][1].split("\n; kernel ")
        if order is None:
            return "\n; kernel ".join(kernels_text)
        return "\n; kernel ".join(t for t in kernels_text[1:] if _order(t.split("\n")[0], entry.name) == order)
    if backend == "cuda":
        text = module.companions[0][1]
        parts = (m for m in _GLOBAL.finditer(text) if _order(m[1], entry.name) == order)
        return text.rstrip() if order is None else "\n\n".join(m[0] for m in parts)
    if order is None:
        return module.text.rstrip()
    lines = module.text.split("\n")
    pieces = []
    for node in ast.parse(module.text).body:
        if isinstance(node, ast.FunctionDef) and _order(node.name, entry.name) == order:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            pieces.append("\n".join(lines[first - 1 : node.end_lineno]))
    constants = [line for line in lines if re.match(r"C\d+ = ", line)]
    used = [c for c in constants if any(re.search(rf"\b{c.split(' ')[0]}\b", p) for p in pieces)]
    return "\n".join([*used, *([""] if used else []), "\n\n\n".join(pieces)])


def _order(function: str, name: str) -> int | None:
    """Of which order a function of a module is: linear, _linear_vjp_d_x, linear_vjp_vjp; None for others."""
    rest = function.removeprefix("_").removeprefix(name)
    if rest == function or (rest and not rest.startswith("_")):
        return None
    return min(rest.count("_vjp"), ORDERS - 1)
