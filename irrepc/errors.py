"""The errors irrepc raises, and `require`, the one way to an optional package.

Every message reads «what: got …; expected …; do …»: the reader learns what failed, what was found, what was
wanted and the next step. Errors that mean a wrong value are also `ValueError`, those that mean a missing package
are also `ImportError`, so that callers who know nothing of irrepc can still catch them.
"""

import importlib
from types import ModuleType


class IrrepcError(Exception):
    """The root of all errors raised on purpose by irrepc."""


class InputError(IrrepcError, ValueError):
    """Numbers or arrays that a graph, a layer or a model cannot take."""


class IrrepsError(IrrepcError, ValueError):
    """Irreps that cannot be read, or that do not fit the place where they are used."""


class ConventionError(IrrepcError, ValueError):
    """An unknown convention, or one in which the thing asked for is not known."""


class RecipeError(IrrepcError, ValueError):
    """A recipe that names no kernel: unknown object, missing or impossible argument."""


class KernelError(IrrepcError):
    """A kernel that breaks a rule of the language, or arrays that do not fit its operands."""


class ProofError(IrrepcError):
    """A derived object failed one of the exact proofs; nothing is emitted from it."""


class SizeError(IrrepcError, ValueError):
    """The code asked for would exceed the stated size; the message carries the estimate."""


class BackendError(IrrepcError):
    """An unknown backend, or one that cannot run here (device, dtype, missing compiler)."""


class StaleError(IrrepcError):
    """An emitted file on the shelf or in the cache is not what today's sources emit."""


class MissingExtraError(IrrepcError, ImportError):
    """A package that only an extra of irrepc installs is not there."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which the extra `irrepc[extra]` installs, or say how to get it.

    `module` may be dotted ("ase.io"). Raises `MissingExtraError` when the top package is absent. A package that is
    there and fails while it is imported keeps its own error: hiding it would send the reader the wrong way.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise MissingExtraError(
            f"{module}: got no installed package {package!r}; expected the one that the extra irrepc[{extra}] brings; "
            f'do: pip install "irrepc[{extra}]"',
            name=package,
        ) from error
