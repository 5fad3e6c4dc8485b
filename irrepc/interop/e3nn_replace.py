"""replace: generated kernels inside the modules of e3nn, which keep their weights, names, layout and methods.

An o3.TensorProduct, o3.Linear, nn.Extract or o3.SphericalHarmonics holds, as one child or attribute, the code that e3nn
generated for it. That code alone is exchanged. The module stays the same object with the same parameters: optimisers,
hooks, checkpoints, subclasses, `weight_views`, `right` and modules shared in two places see no difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import BackendError, IrrepcError, require
from irrepc.interop.e3nn_parts import Extraction, Harmonics, LinearMap, Path, Product, Scaling
from irrepc.nn.couplings import MODES, Coupling
from irrepc.runtime.load import check_choice

_OURS = (Product, Scaling, LinearMap, Harmonics, Extraction)
_OLDEST = (0, 6)


@dataclass(frozen=True, slots=True)
class Report:
    """What of a module tree computes with generated code: (name, class), and what does not: (name, reason)."""

    replaced: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"replaced  {name or 'the module'}: {kind}" for name, kind in self.replaced]
        return "\n".join([*lines, *(f"left      {name or 'the module'}: {reason}" for name, reason in self.left)])


class _LeftError(IrrepcError):
    """Why a module has no generated form."""


def replace(module: nn.Module, backend: str = "auto") -> nn.Module:
    """Let the e3nn modules in a tree compute with generated kernels; the tree is changed in place and returned.

    TensorProduct with its subclasses, Linear, SphericalHarmonics, Extract, and Gate, which is an Extract and a product,
    give the same numbers from the same weights, in e3nn's layout, with both derivatives. What has no generated form
    stays as it is: `report` says what and why. Functions such as o3.spherical_harmonics are no modules and stay.

    backend  as `irrepc.load`: "auto", "torch", "llvm", "numba" or "cuda"

    Constants are exact here, while e3nn rounds w3j to the default dtype a module was built in: a module built in
    float32 and then made double differs by 1e-8. Kernels take float32 and float64. TorchScript is not supported;
    torch.compile is.
    Raises MissingExtraError without e3nn, BackendError for e3nn before 0.6 or an unknown backend.
    """
    check_choice(backend)
    for _, part in _modules(module):
        try:
            code = _stand_in(part, backend)
        except _LeftError:
            continue  # `report` finds the reason again
        _exchange(part, code)
    return module


def report(module: nn.Module) -> Report:
    """What `replace` has done to a module tree, what it would leave and why, and what it has not been asked for yet.

    A module that stands in two places is named once, where it stands first.
    """
    replaced: list[tuple[str, str]] = []
    left: list[tuple[str, str]] = []
    for name, part in _modules(module):
        kind = type(part).__name__
        if isinstance(part, torch.jit.ScriptModule):
            left.append((name, f"{part.original_name} is compiled by TorchScript; do: replace before compiling"))
        elif isinstance(getattr(part, _CODE.get(_kind(part), ""), None), _OURS):
            replaced.append((name, kind))
        else:
            try:
                _stand_in(part, "torch")
            except _LeftError as reason:
                left.append((name, f"{kind}: {reason}"))
            else:
                left.append((name, f"{kind} is not replaced yet; do: irrepc.e3nn.replace"))
    return Report(tuple(replaced), tuple(left))


_CODE = {
    "TensorProduct": "_compiled_main_left_right",
    "Linear": "_compiled_main",
    "Extract": "_compiled_forward",
    "SphericalHarmonics": "sph_func",
}
"""Where e3nn keeps the code it generated for an instance of a class."""


def _modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of a tree that are e3nn's and compute, those in TorchScript included."""
    return [(name, part) for name, part in module.named_modules() if _kind(part)]


def _kind(part: nn.Module) -> str:
    """A key of _CODE, "other" for a class of e3nn that has none, or "" for any other module."""
    o3, layers = _e3nn()
    if isinstance(part, torch.jit.ScriptModule):
        # torch has a Linear too
        known = part.original_name in _CODE and (part.original_name != "Linear" or hasattr(part, _CODE["Linear"]))
        return part.original_name if known else ""
    classes = {
        "TensorProduct": o3.TensorProduct,
        "Linear": o3.Linear,
        "Extract": layers.Extract,
        "SphericalHarmonics": o3.SphericalHarmonics,
        "other": (o3.experimental.FullTensorProductv2, o3.experimental.ElementwiseTensorProductv2),
    }
    return next((kind for kind, own in classes.items() if isinstance(part, own)), "")


def _e3nn() -> tuple[Any, Any]:
    """e3nn.o3 and e3nn.nn. Raises MissingExtraError or BackendError."""
    package: Any = require("e3nn", "e3nn")
    version = tuple(int(n) for n in package.__version__.split(".")[:2])
    if version < _OLDEST:
        raise BackendError(
            f"e3nn.replace: got e3nn {package.__version__}; expected 0.6 or later; do: pip install -U e3nn"
        )
    return require("e3nn.o3", "e3nn"), require("e3nn.nn", "e3nn")


def _exchange(part: nn.Module, code: nn.Module) -> None:
    """Put the code in its place, and take its name off the list of what e3nn pickles as generated code."""
    name = _CODE[_kind(part)]
    if name in (listed := getattr(part, "__codegen__", [])):
        listed.remove(name)
    for there in (*part.parameters(), *part.buffers()):
        code = code.to(there.device)  # its indices; the numbers it keeps are there already
        break
    setattr(part, name, code.train(part.training))


def _stand_in(part: Any, backend: str) -> nn.Module:
    """The generated code for a module of e3nn. Raises _LeftError."""
    if isinstance(part, torch.jit.ScriptModule):
        raise _LeftError("it is compiled by TorchScript")
    kind = _kind(part)
    if not hasattr(part, _CODE.get(kind, "")):
        raise _LeftError("this class of e3nn has no generated form")
    try:
        match kind:
            case "TensorProduct":
                return _product(part, backend)
            case "Linear":
                return _linear(part)
            case "Extract":
                return _extraction(part)
            case _:
                return Harmonics(part._lmax, backend)
    except IrrepcError as error:
        raise _LeftError(str(error)) from error


def _product(part: Any, backend: str) -> nn.Module:
    sides = _irreps(part.irreps_in1), _irreps(part.irreps_in2), _irreps(part.irreps_out)
    couplings = []
    for i in part.instructions:
        if i.connection_mode not in MODES:
            raise _LeftError(f"got connection mode {i.connection_mode!r}; expected one of {', '.join(MODES)}")
        if 0 not in i.path_shape:
            # e3nn's coefficient multiplies w3j, ours √(2l+1)·w3j
            scale = float(i.path_weight) / math.sqrt(sides[2][i.i_out].irrep.dim)
            couplings.append(Coupling(i.i_in1, i.i_in2, i.i_out, i.connection_mode, bool(i.has_weight), scale))
    buffers = part._compiled_main_left_right.state_dict()
    scalars = all(
        c.mode == "uuu" and not c.has_weight and 0 in (sides[0][c.i1].irrep.l, sides[1][c.i2].irrep.l)
        for c in couplings
    )
    if scalars:
        return Scaling(*sides, couplings, buffers)
    return Product(*sides, couplings, part.shared_weights, buffers, backend)


def _linear(part: Any) -> nn.Module:
    irreps_in, irreps_out = _irreps(part.irreps_in), _irreps(part.irreps_out)
    paths, start = [], 0
    for i in part.instructions:
        if i.i_in >= 0 and 0 not in i.path_shape:
            paths.append(Path(i.i_in, i.i_out, float(i.path_weight), start))
            start += math.prod(i.path_shape)
    biases = [i.i_out for i in part.instructions if i.i_in < 0 and 0 not in i.path_shape]
    factors = _factors(part, irreps_in, paths, bool(biases))
    buffers = part._compiled_main.state_dict()
    return LinearMap(irreps_in, irreps_out, paths, biases, part.shared_weights, factors, buffers)


def _factors(part: Any, irreps_in: Irreps, paths: list[Path], biased: bool) -> tuple[int, int] | None:
    """(f_in, f_out) of a Linear, which e3nn does not keep: the shape of the weights tells, or their coefficients."""
    if part.internal_weights and paths:
        return tuple(part.weight.shape[:2]) if part.weight.ndim == 3 else None
    if not paths:
        if biased and part.internal_weights and part.bias.ndim == 2:
            raise _LeftError("f_out without weights does not tell f_in")
        return None
    for p in paths:
        fans = [irreps_in[q.source].mul for q in paths if q.target == p.target]
        expected = sum(fans), irreps_in[p.source].mul * len(fans)
        if not any(math.isclose(p.coefficient, fan**-0.5) for fan in expected):
            raise _LeftError("f_in and f_out of weights given in the call are not known")
    return None


def _extraction(part: Any) -> nn.Module:
    where = _irreps(part.irreps_in).slices()
    outputs = [[(where[i].start, where[i].stop) for i in chosen] for chosen in part.instructions]
    # whether one output comes in a tuple was an argument that e3nn does not keep
    single = len(outputs) == 1 and isinstance(part(torch.zeros(1, part.irreps_in.dim)), torch.Tensor)
    return Extraction(outputs, single)


def _irreps(theirs: Any) -> Irreps:
    return Irreps(tuple(Block(mul, Irrep(irrep.l, irrep.p)) for mul, irrep in theirs))
