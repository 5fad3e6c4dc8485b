"""Threads: the same bits for any number of them, calls from several at once, forks, errors, fair cuts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from irrepc.algebra.recipe import Recipe
from irrepc.nn.graph import index_of
from irrepc.runtime.load import load
from irrepc.runtime.store import load_module
from tests.kernels import RECIPES

ROWS, NODES = 999, 50
CASES = [(name, backend) for name in ("convolution", "linear") for backend in ("numba", "llvm")]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Give torch its threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def eager_threads(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, backend: str) -> Any:
    """The kernel's module, made to think that any work is worth several threads."""
    module: Any = load_module(recipe, backend)[0]
    monkeypatch.setattr(module, "WORTH_THREADS", 1)
    return module


def value_and_gradients(name: str, backend: str) -> Callable[[], list[torch.Tensor]]:
    """A kernel on operands that are always the same: a gather and scatter, or weights shared by all rows."""
    generator = torch.Generator().manual_seed(0)
    kernel = load(RECIPES[name], backend)
    sizes = [(NODES, 8), (ROWS, 4), (ROWS, 12)] if name == "convolution" else [(ROWS, 5), (7,)]
    tensors = [torch.randn(*s, generator=generator, requires_grad=True) for s in sizes]
    rows = [torch.randint(0, NODES, (ROWS,), generator=generator) for _ in range(2)]
    rest = (*(index_of(r, NODES) for r in rows), 2) if name == "convolution" else (2, 1, 2, 3)

    def compute() -> list[torch.Tensor]:
        o = kernel(*tensors, *rest)
        return [o, *torch.autograd.grad((o**2).sum(), tensors)]

    return compute


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """To the last bit."""
    return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_the_result_does_not_depend_on_threads(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = eager_threads(monkeypatch, RECIPES[name], backend)
    compute = value_and_gradients(name, backend)
    torch.set_num_threads(1)
    expected = compute()
    pieces = []
    pieces_of = module.pieces_of

    def recorded(work: int, threads: int) -> Any:
        pieces.append(pieces_of(work, threads))
        return pieces[-1]

    monkeypatch.setattr(module, "pieces_of", recorded)
    for count in (2, 3):
        torch.set_num_threads(count)
        assert same(compute(), expected)
    assert set(pieces) == {8, 12}


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_several_python_threads_may_call_at_once(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eager_threads(monkeypatch, RECIPES[name], backend)
    compute = value_and_gradients(name, backend)
    torch.set_num_threads(2)
    expected = compute()
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(compute) for _ in range(32)]
        assert all(same(r.result(), expected) for r in results)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_works_after_fork(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DataLoader's worker is a fork of a process that has already run kernels on several threads."""
    eager_threads(monkeypatch, RECIPES[name], backend)
    compute = value_and_gradients(name, backend)
    torch.set_num_threads(2)
    expected = compute()
    child = os.fork()
    if child == 0:
        os._exit(0 if same(compute(), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(compute(), expected)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    module: Any = load_module(RECIPES["harmonics"], "llvm")[0]

    def compute(n0: int, n1: int) -> None:
        if n0 == 3:
            raise ArithmeticError(f"rows {n0} to {n1}")

    with pytest.raises(ArithmeticError, match="rows 3 to 4"):
        module.run(compute, [(n, n + 1) for n in range(8)], 2)


def test_every_job_is_done_once() -> None:
    module: Any = load_module(RECIPES["harmonics"], "llvm")[0]
    for threads in (1, 2, 5):
        done: list[int] = []
        module.run(lambda *cut, done=done: done.extend(range(*cut)), module.cut_rows(97, 13), threads)
        assert sorted(done) == list(range(97))


@pytest.mark.parametrize("pieces", [1, 3, 8])
def test_cuts_hold_equally_many_edges(pieces: int) -> None:
    """Within one row, whose edges are not cut: rows of 0 to 9 edges, and one of a hundred."""
    module: Any = load_module(RECIPES["convolution"], "llvm")[0]
    degrees = np.random.default_rng(0).integers(0, 10, 400)
    degrees[200] = 100
    start = np.concatenate([[0], np.cumsum(degrees)])
    cuts = module.cut_edges(start, pieces)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == 400
    assert all(a[1] == b[0] for a, b in pairwise(cuts))
    edges = [start[n1] - start[n0] for n0, n1 in cuts]
    assert max(edges) - start[-1] / pieces <= 100
    assert module.cut_edges(np.zeros(1, np.int64), pieces) == []
    assert module.cut_rows(0, pieces) == []
    few = module.cut_edges(np.array([0, 5, 5, 6]), pieces)
    assert (few[0][0], few[-1][1]) == (0, 3)
