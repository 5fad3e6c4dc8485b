"""A model library as tests use it, through ctypes, and the structures they evaluate."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from irrepc.deploy.compile import compile_network
from irrepc.deploy.neighbours import check_structure, pairs_within
from irrepc.deploy.program import Program
from irrepc.models.nequip import NequIP, NequIPConfig

POINTER, COUNT = ctypes.c_void_p, ctypes.c_int64
EXCHANGE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, ctypes.c_int, ctypes.c_int, ctypes.c_int, POINTER)
FORWARD, REVERSE = 1, -1


class Found(NamedTuple):
    """energies (n_local,), forces (n_total, 3), virial (3, 3), virials of atoms (n_local, 6)."""

    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray
    virials: np.ndarray


class Pairs(NamedTuple):
    """A neighbour list as the C interface takes it."""

    species: np.ndarray
    positions: np.ndarray
    first: np.ndarray
    neighbours: np.ndarray
    shifts: np.ndarray


class RefusedError(Exception):
    """An evaluation that failed: its number and message."""


class Library:
    """An open model."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        c = self.c = ctypes.CDLL(str(path))
        c.irrepc_model_open.restype = POINTER
        c.irrepc_model_close.argtypes = [POINTER]
        c.irrepc_model_message.restype, c.irrepc_model_message.argtypes = ctypes.c_char_p, [POINTER]
        c.irrepc_model_cutoff.restype = ctypes.c_double
        c.irrepc_model_set_threads.argtypes = [POINTER, ctypes.c_int]
        c.irrepc_model_set_exchange.argtypes = [POINTER, EXCHANGE, POINTER]
        c.irrepc_model_evaluate.argtypes = [POINTER, COUNT, COUNT, *[POINTER] * 9]
        c.irrepc_model_atomic_numbers.restype = ctypes.POINTER(ctypes.c_int)
        self.model = c.irrepc_model_open()
        self.check(c.irrepc_model_set_threads(self.model, threads))

    def check(self, code: int) -> None:
        if code:
            raise RefusedError(code, self.c.irrepc_model_message(self.model).decode())

    def close(self) -> None:
        self.c.irrepc_model_close(self.model)

    def set_exchange(self, function: Callable[..., int] | None) -> None:
        self.exchange = EXCHANGE(function) if function else EXCHANGE()
        self.check(self.c.irrepc_model_set_exchange(self.model, self.exchange, None))

    def evaluate(self, pairs: Pairs, shifts: bool = True) -> Found:
        local, total = len(pairs.first) - 1, len(pairs.species)
        out = Found(np.empty(local), np.empty((total, 3)), np.empty((3, 3)), np.empty((local, 6)))
        given: list[Any] = [a.ctypes.data for a in pairs]
        if not shifts:
            given[-1] = None
        self.check(self.c.irrepc_model_evaluate(self.model, local, total, *given, *(a.ctypes.data for a in out)))
        return out


def listed(kinds: np.ndarray, positions: np.ndarray, cell: np.ndarray | None, cutoff: float) -> Pairs:
    """The pairs of a structure, periodic where it has a cell."""
    points, box, periodic = check_structure(positions, cell, cell is not None)
    found = pairs_within(points, box, periodic, cutoff)
    first = np.zeros(len(points) + 1, np.int64)
    np.cumsum(np.bincount(found.receivers, minlength=len(points)), out=first[1:])
    species, senders = (np.ascontiguousarray(a, np.int32) for a in (kinds, found.senders))
    return Pairs(species, points, first, senders, np.ascontiguousarray(found.shifts @ box))


def nequip(dtype: str = "float64", layers: int = 3) -> Program:
    """A small NequIP for hydrogen and oxygen, of random weights."""
    torch.manual_seed(0)
    config = NequIPConfig(
        (1, 8), cutoff=4.0, layers=layers, lmax=2, features=(5, 4, 3), avg_num_neighbors=12.0, readout_depth=1,
        readout_width=6, radial_width=8, scales=(1.3, 0.7), shifts=(-2.0, 3.0),
    )  # fmt: skip
    return compile_network(NequIP(config), dtype=dtype, tolerance=1e-3)


CELLS = {
    "skewed": (np.array([[6.0, 0, 0], [1.0, 5.5, 0], [0.3, -0.8, 5.8]]), 24),
    "thin": (np.array([[3.0, 0, 0], [0.4, 2.5, 0], [0.3, -0.3, 2.8]]), 3),
    "wide": (np.diag([11.0, 9.5, 10.0]), 70),
    "single": (np.array([[2.6, 0, 0], [1.3, 2.4, 0], [1.2, 0.7, 2.2]]), 1),
}


def structure(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, positions and species (0 or 1) of a periodic structure; atoms near points of a grid."""
    cell, atoms = CELLS[name]
    rng = np.random.default_rng(len(name))
    n = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms] / n
    return cell, grid @ cell + 0.1 * rng.standard_normal((atoms, 3)), rng.integers(0, 2, atoms)
