"""Deploy: trained networks compiled for evaluation, run without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irrepc.deploy.deployed import Deployed, Result, load

__all__ = ["Deployed", "Result", "load"]


def __getattr__(name: str) -> Any:  # Any: whichever public name is asked for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; expected one of {', '.join(__all__)}")
    from irrepc.deploy import deployed

    return getattr(deployed, name)
