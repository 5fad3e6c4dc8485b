"""Layers: the text of layers.py, the generated kernels as torch modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irrepc.algebra.recipe import Label, LinearRecipe, ProductRecipe
from irrepc.emit.module import as_comment, head
from irrepc.emit.plan import Plan
from irrepc.emit.templates import render, template_hash
from irrepc.emit.views import width
from irrepc.frontend.derive import derive
from irrepc.frontend.products import path_label
from irrepc.ir.kernel import Axes, Kernel

TEMPLATE = "package/layers.py.jinja"


@dataclass(frozen=True, slots=True)
class LinearView:
    """A linear layer as its template reads it."""

    name: str
    function: str
    source: str
    arguments: str
    tuple: str
    x_width: str
    o_width: str


def layers_module(planned: Plan) -> str:
    """The text of layers.py for the parts that are in the package."""
    kernels = {entry.name: derive(entry.recipe) for part in planned.parts for entry in part.entries}
    values: dict[str, object] = {part.name: True for part in planned.parts}
    for name in ("spherical_harmonics", "wigner_d", "tensor_product", "convolution", "linear", "gate", "norm"):
        values.setdefault(name, False)
    features = tuple(dict.fromkeys(a for b in planned.features for a in b.axes))
    banner = (
        *head(planned.command),
        "",
        f"source       templates/{TEMPLATE} {template_hash(TEMPLATE)}",
        head(planned.command)[0],
    )
    chosen = dict(planned.channels)
    compiled = tuple(b for b in COMPILED if b in planned.backends)
    choices = (*(("auto",) if compiled else ()), *planned.backends)
    return render(
        TEMPLATE,
        banner=as_comment(banner),
        lmax=planned.lmax,
        compiled=bool(compiled),
        cuda="cuda" in compiled,
        auto="{" + ", ".join(f'"{d}": "{b}"' for d, b in _by_device(compiled).items()) + "}",
        choices_text=_choices_text(compiled),
        choices=_members(f'"{c}"' for c in choices),
        default=choices[0],
        sides=_sides(planned),
        feature_arguments=_arguments(features, chosen),
        feature_axes=", ".join(features),
        feature_tuple=_members(features),
        harmonics_width=(planned.lmax + 1) ** 2,
        wigner_width=sum((2 * l + 1) ** 2 for l in range(planned.lmax + 1)),
        linears=[_linear(kernels[f], f, name, source, chosen) for f, name, source in _LINEARS if f in kernels],
        **_convolution(planned, kernels),
        x_width=width(kernels["squared_norm"].inputs[0]) if "squared_norm" in kernels else "",
        **values,
    )


COMPILED = {
    "llvm": "vector code, CPU tensors",
    "numba": "compiled loops, CPU tensors",
    "cuda": "CUDA C++, CUDA tensors",
}
"""What stands beside torch; "auto" takes the first of a device."""

_LINEARS = (("linear", "Linear", "FEATURES"), ("linear_messages", "MessageLinear", "MESSAGES"))


def _linear(kernel: Kernel, function: str, name: str, source: str, chosen: dict[str, int]) -> LinearView:
    x, _ = kernel.inputs
    after = {f"v{axis[1:]}": mul for axis, mul in chosen.items()}
    return LinearView(
        name=name,
        function=function,
        source=source,
        arguments=_arguments(kernel.channels, {**chosen, **after}),
        tuple=_members(kernel.channels),
        x_width=width(x),
        o_width=width(kernel.outputs[0]),
    )


def _convolution(planned: Plan, kernels: dict[str, Kernel]) -> dict[str, object]:
    """The widths and paths of the convolution, empty when it is left out."""
    part = planned.part("convolution")
    recipe = part.entries[0].recipe if part is not None else None
    if not isinstance(recipe, ProductRecipe):
        return {"y_width": "", "w_width": "", "o_width": "", "path_count": 0, "paths": ()}
    kernel = kernels["convolution"]
    _, y, w = kernel.inputs
    return {
        "y_width": width(y),
        "w_width": width(w),
        "o_width": width(kernel.outputs[0]),
        "path_count": len(recipe.paths),
        "paths": [path_label(recipe, path) for path in recipe.paths],
    }


def _sides(planned: Plan) -> list[tuple[str, list[str]]]:
    """The names and blocks of the irreps that layers talk about."""
    linear = planned.part("linear")
    recipe = linear.entries[0].recipe if linear is not None else None
    sides = [("FEATURES", planned.features), ("HARMONICS", planned.harmonics), ("MESSAGES", planned.messages)]
    if isinstance(recipe, LinearRecipe):
        sides.append(("OUTPUTS", recipe.out))
    return [(name, [_block(b) for b in blocks]) for name, blocks in sides]


def _block(label: Label) -> str:
    return f'("{", ".join(label.axes)}", "{label.irrep}")'


def _members(names: Iterable[str]) -> str:
    """What stands between the parentheses of a tuple."""
    parts = tuple(names)
    return f"{parts[0]}," if len(parts) == 1 else ", ".join(parts)


def _choices_text(compiled: tuple[str, ...]) -> str:
    """The backends in a sentence."""
    if not compiled:
        return '"torch" (unrolled tensor code, any device)'
    others = ", ".join(f'"{b}" ({COMPILED[b]})' for b in compiled)
    taken = ", ".join(f"{b} on {device.upper()} tensors" for device, b in _by_device(compiled).items())
    return f'"torch" (unrolled tensor code, any device), {others}\nor "auto" ({taken}, torch elsewhere)'


def _by_device(compiled: tuple[str, ...]) -> dict[str, str]:
    """The backend that "auto" takes on each type of device."""
    found: dict[str, str] = {}
    for backend in compiled:
        found.setdefault("cuda" if backend == "cuda" else "cpu", backend)
    return found


def _arguments(axes: Axes, chosen: dict[str, int]) -> str:
    """Channel extents as arguments, with the multiplicities that were asked for as defaults."""
    return ", ".join(f"{a}: int = {chosen[a]}" if a in chosen else f"{a}: int" for a in axes)
