"""Script: what another environment's Python runs for bench; it needs torch, numpy and the peer alone, not irrepc.

bench_script.py FOLDER reads case.json and case.npz there, answers {"orders": n} and then obeys lines of standard input:
"results" writes results.npz (value, gradients), "seconds PHASE" times one run.  Answers are JSON, one a line.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch


def main(folder: Path) -> None:
    """Prepare the peer and obey."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the peers print
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    arrays = {name: torch.from_numpy(array) for name, array in np.load(folder / "case.npz").items()}
    torch.set_num_threads(case["threads"])
    run, inputs, restore, orders = _KINDS[case["kind"]](case, arrays, folder)
    print(json.dumps({"orders": orders}), file=answers, flush=True)
    for line in sys.stdin:
        verb, *phase = line.split()
        answer: Any = None
        if verb == "results":
            computed = [f(t.detach()).numpy() for f, t in zip(restore, _evaluate(run, inputs, 1), strict=True)]
            np.savez(folder / "results.npz", *computed)
        else:
            start = perf_counter()
            _evaluate(run, inputs, int(phase[0]))
            answer = perf_counter() - start
        print(json.dumps(answer), file=answers, flush=True)


def _evaluate(run: Any, inputs: Any, phase: int) -> Any:
    """As bench_timing.evaluate, which this environment does not have."""
    if phase == 0:
        with torch.no_grad():
            return (run(*inputs),)
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    value = run(*inputs)
    cotangent = torch.ones_like(value, requires_grad=phase == 2)
    gradients = torch.autograd.grad(value, inputs, cotangent, create_graph=phase == 2)
    if phase == 1:
        return (value, *gradients)
    ones = [torch.ones_like(g) for g in gradients]
    return torch.autograd.grad(gradients, (*inputs, cotangent), ones, allow_unused=True)


def _convolution(case: Any, arrays: Any, folder: Path) -> Any:
    """cuequivariance's channel-wise tensor product between a gather and a scatter, in ir_mul layout."""
    cue, cuet = import_module("cuequivariance"), import_module("cuequivariance_torch")
    left, right = cue.Irreps("O3", case["left"]), cue.Irreps("O3", case["right"])
    allowed = [ir for _, ir in cue.Irreps("O3", case["allowed"])]
    options = {"layout": cue.ir_mul, "shared_weights": False, "internal_weights": False, "method": "naive"}
    product = cuet.ChannelWiseTensorProduct(left, right, allowed, **options)
    senders, receivers = arrays["senders"], arrays["receivers"]

    def run(x: Any, y: Any, w: Any) -> Any:
        messages = product(x[senders], y, w)
        return messages.new_zeros(case["nodes"], messages.shape[1]).index_add(0, receivers, messages)

    x, y, w = (arrays[name] for name in "xyw")
    # Its messages and weights are sorted by irrep, stably, ours stand path by path; and its couplings have another norm
    # and sign, which is read off the results: one number for each path, put into the weights.
    ours, start, first = [], 0, 0
    for irrep, mul, dim in case["paths"]:
        ours.append((irrep, torch.arange(start, start + mul * dim), torch.arange(first, first + mul)))
        start, first = start + mul * dim, first + mul
    found = []
    for _, ir in product.irreps_out:
        found.append(next(path for path in ours if path[0] == str(ir)))
        ours = [path for path in ours if path is not found[-1]]
    messages, weights = (torch.cat([path[i] for path in found]) for i in (1, 2))
    theirs, wanted = run(x, y, w[:, weights]), arrays["o"][:, messages]
    scale, start = [], 0
    for _, columns, channels in found:
        a, b = (t[:, start : start + len(columns)] for t in (wanted, theirs))
        scale.append(((a * b).sum() / (b * b).sum()).expand(len(channels)))
        start += len(columns)
    scales, order, back = torch.cat(scale), torch.argsort(messages), torch.argsort(weights)

    def same(t: Any) -> Any:
        return t

    restore = (lambda t: t[:, order], same, same, lambda t: (t * scales)[:, back])
    return run, (x, y, w[:, weights] * scales), restore, 3


def _contraction(case: Any, arrays: Any, folder: Path) -> Any:
    """mace-torch's SymmetricContraction in its reduced basis; its weights and couplings go to couplings.npz."""
    module = import_module("mace.modules.symmetric_contraction")
    o3 = import_module("e3nn.o3")
    layer = module.SymmetricContraction(
        o3.Irreps(case["left"]), o3.Irreps(case["out"]), 3, num_elements=case["species"], use_reduced_cg=True
    )
    layer.requires_grad_(False)
    given = {}
    for degree, contraction in enumerate(layer.contractions):
        for nu in (1, 2, 3):
            given[f"u_{degree}_{nu}"] = getattr(contraction, f"U_matrix_{nu}").numpy()
            weights = contraction.weights_max if nu == 3 else contraction.weights[2 - nu]
            given[f"w_{degree}_{nu}"] = weights.numpy()
    np.savez(folder / "couplings.npz", **given)
    channels, components = case["channels"], case["components"]
    x = arrays["x"].view(-1, components, channels).transpose(1, 2).contiguous()
    species = torch.nn.functional.one_hot(arrays["species"], case["species"]).float()

    def value(t: Any) -> Any:
        pieces, start = [], 0
        for degree in range(len(layer.contractions)):
            width = (2 * degree + 1) * channels
            block = t[:, start : start + width].reshape(-1, channels, 2 * degree + 1)
            pieces.append(block.transpose(1, 2).flatten(1))
            start += width
        return torch.cat(pieces, 1)

    restore = (value, lambda t: t.transpose(1, 2).flatten(1))
    return (lambda x: layer(x, species)), (x,), restore, 3


_KINDS = {"convolution": _convolution, "contraction": _contraction}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
