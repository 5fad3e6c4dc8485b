"""irrepc: a compiler from symbolic irreps to readable, exact, fast equivariant kernels.

Importing this package loads neither torch nor sympy: a public name is imported when it is first asked for.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> "module:attribute", or "module" for a module; read by tests/test_floors.py
_PUBLIC = {
    "Irreps": "irrepc.algebra.irreps:Irreps",
    "Kernel": "irrepc.ir.kernel:Kernel",
    "Recipe": "irrepc.algebra.recipe:Recipe",
    "Surd": "irrepc.algebra.surd:Surd",
    "derive": "irrepc.frontend.derive:derive",
    "e3nn": "irrepc.e3nn",
    "emit": "irrepc.emit.module:emit",
    "load": "irrepc.runtime.load:load",
    "load_model": "irrepc.interop.sources:load_model",
    "models": "irrepc.models",
    "nn": "irrepc.nn",
    "vjp": "irrepc.ir.vjp:vjp",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:  # Any: the table holds classes, functions and modules
    if name not in _PUBLIC:
        raise AttributeError(f"module 'irrepc' has no attribute {name!r}; expected one of {', '.join(__all__)}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value  # the next look-up is a plain one
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
