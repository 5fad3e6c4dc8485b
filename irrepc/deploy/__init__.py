"""Deploy: trained networks compiled for evaluation, run without torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irrepc.deploy.compile import deploy
    from irrepc.deploy.deployed import Deployed, Result, load
    from irrepc.deploy.file import read_program, write_program

__all__ = ["Deployed", "Result", "deploy", "load", "read_program", "write_program"]
_PLACES = {"deploy": "compile", "read_program": "file", "write_program": "file"}  # all others: deployed


def __getattr__(name: str) -> Any:  # Any: whichever public name is asked for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; expected one of {', '.join(__all__)}")
    return getattr(import_module(f"irrepc.deploy.{_PLACES.get(name, 'deployed')}"), name)
