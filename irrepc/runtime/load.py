"""load: a recipe and a backend -> a differentiable torch function."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from irrepc.algebra.recipe import Recipe, digest
from irrepc.emit.module import BACKENDS
from irrepc.errors import BackendError
from irrepc.runtime.arrays import OnArrays
from irrepc.runtime.operands import Loop, check_operands, signature
from irrepc.runtime.ops import Implement, Kernel
from irrepc.runtime.store import load_module
from irrepc.runtime.tensors import OnTensors

ATOMIC = "cuda-atomic"
CHOICES = ("auto", *BACKENDS, ATOMIC)
Function = Callable[..., Any]


def check_choice(backend: str) -> str:
    """Return the name of a backend or "auto"; raise BackendError otherwise."""
    if backend not in CHOICES:
        raise BackendError(f"backend: got {backend!r}; expected one of {', '.join(CHOICES)}")
    return backend


@lru_cache(maxsize=1024)
def load(recipe: Recipe, backend: str = "auto") -> Function:
    """The kernel of a recipe as a torch function: operands, indices, channel extents -> output or tuple.

    backend  "torch": unrolled tensor code on any device; "llvm": vector code on CPU tensors, the fast way;
             "numba": compiled loops on CPU tensors, readable; "cuda": CUDA C++ on CUDA tensors, the same bits
             in every run; "cuda-atomic": the same kernels, but gradients that are sums over edges are added up in any
             order, which is faster and makes last digits differ by the run;
             "auto": llvm on CPU tensors, cuda on CUDA tensors, torch elsewhere, decided at each call by the device of
             the first operand
    Raises BackendError for an unknown backend.  What cannot be compiled for a CUDA device raises CudaError at its
    first call there, and nothing falls back: choose "torch" then.
    """
    match check_choice(backend):
        case "torch":
            return _torch(recipe)
        case "numba" | "llvm":
            return _compiled(recipe, backend)
        case "cuda":
            return _compiled(recipe, backend, "cuda", OnTensors)
        case "cuda-atomic":
            return _compiled(recipe, "cuda", "cuda", partial(OnTensors, atomic=True), "_atomic")
        case _:
            return _auto(recipe)


def _torch(recipe: Recipe) -> Function:
    module, name = load_module(recipe, "torch")
    function: Function = getattr(module, name)
    s = signature(module.SPEC[name])
    n, m = len(s.inputs), len(s.inputs) + len(s.indices)

    def call(*arguments: Any) -> Any:
        check_operands(name, s, arguments[:n], Loop(s, arguments[:n], arguments[n:m], arguments[m:]), None)
        return function(*arguments)

    return call


def _compiled(
    recipe: Recipe, backend: str, device: str = "cpu", implement: Implement = OnArrays, variant: str = ""
) -> Function:
    module, name = load_module(recipe, backend)
    meaning, _ = load_module(recipe, "torch")
    return Kernel(module, meaning, name, f"{backend}{variant}_{digest(recipe)}", device=device, implement=implement)


def _auto(recipe: Recipe) -> Function:
    by_device, elsewhere = {"cpu": load(recipe, "llvm")}, load(recipe, "torch")
    # Loaded now and not when a tensor comes: torch.compile cannot follow what emits.  ROCm says "cuda" of its devices.
    if torch.version.cuda is not None and torch.cuda.is_available():
        by_device["cuda"] = load(recipe, "cuda")

    def call(first: torch.Tensor, *rest: Any) -> Any:
        return by_device.get(first.device.type, elsewhere)(first, *rest)

    return call
