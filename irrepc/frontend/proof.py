"""Proof: the record of an identity that was checked exactly, and the error when it does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from irrepc.errors import ProofError


@dataclass(frozen=True, slots=True)
class Proof:
    """An identity that holds.

    name       a short name, unique among the proofs
    statement  what was checked, in a sentence
    lmax       up to which degree
    checked    how many scalar identities were compared
    """

    name: str
    statement: str
    lmax: int
    checked: int

    def __str__(self) -> str:
        return f"{self.name}: {self.statement} ({self.checked} identities, lmax {self.lmax})"


def fail(name: str, got: str, expected: str) -> NoReturn:
    """Raise ProofError for the first identity that does not hold."""
    raise ProofError(f"proof {name}: got {got}; expected {expected}; do: emit nothing, the derivation is wrong")
