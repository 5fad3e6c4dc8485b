"""Pictures of a training from a configuration: its learning curve, errors by element and by size of the force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from irrepc.errors import require
from irrepc.train.evaluate import Evaluation
from irrepc.train.history import Row
from irrepc.train.pictures import BLUE, GREY, MARKS, new_figure, plain_log, png, style


def history_curve(rows: Sequence[Row]) -> bytes:
    """Root mean square errors and the learning rate at every validation."""
    kinds = [
        (name, label)
        for name, label in (("forces", "force RMSE / meV/Å"), ("energy", "energy RMSE / meV per atom"))
        if any(f"validation_{name}_rmse" in row for row in rows)
    ]
    epochs = [row["epoch"] for row in rows]
    with style():
        figure, axes = new_figure(10, 4.2, columns=len(kinds) + 1)
        for axis, (name, label) in zip(axes, kinds, strict=False):
            for what, colour, line in (("train", GREY, "--"), ("validation", BLUE, "-")):
                values = [row.get(f"{what}_{name}_rmse", float("nan")) for row in rows]
                axis.plot(epochs, values, line, color=colour, label=what)
            axis.set(xlabel="epoch", ylabel=label, yscale="log")
            plain_log(axis.yaxis)
            axis.legend()
        axes[-1].plot(epochs, [row["rate"] for row in rows], color=BLUE)
        axes[-1].set(xlabel="epoch", ylabel="learning rate", yscale="log")
        return png(figure)


def error_by_element(evaluations: Mapping[str, Evaluation]) -> bytes:
    """Root mean square force error of each element in each set."""
    found = {name: e.by_element() for name, e in evaluations.items()}
    elements = sorted({z for table in found.values() for z in table})
    with style():
        figure, axis = new_figure(max(5.0, 0.35 * len(elements) * len(found)), 4)
        width = 0.8 / max(len(found), 1)
        for k, ((name, table), (colour, _)) in enumerate(zip(found.items(), cycle(MARKS), strict=False)):
            places = [i + (k + 0.5) * width - 0.4 for i in range(len(elements))]
            heights = [table[z][2] if z in table else 0.0 for z in elements]
            axis.bar(places, heights, width * 0.9, color=colour, label=name)
        axis.set_xticks(range(len(elements)), [symbol(z) for z in elements])
        axis.grid(False, axis="x")
        axis.set(ylabel="force RMSE / meV/Å", title="By element")
        axis.legend()
        return png(figure)


def error_by_force(evaluations: Mapping[str, Evaluation]) -> bytes:
    """Root mean square force error over the size of the force, in equally filled classes."""
    with style():
        figure, axis = new_figure(5.5, 4)
        for (name, evaluation), (colour, mark) in zip(evaluations.items(), cycle(MARKS), strict=False):
            classes = evaluation.by_force()
            middles = [(low + high) / 2 for low, high, _, _ in classes]
            axis.plot(middles, [rmse for *_, rmse in classes], color=colour, marker=mark, label=name)
        axis.set(xlabel="|force label| / eV/Å", ylabel="force RMSE / meV/Å", title="By size of the force")
        axis.set_ylim(bottom=0)
        axis.legend()
        return png(figure)


def symbol(number: int) -> str:
    """Of an element, or its number where it has none."""
    symbols: list[str] = require("ase.data", "ase").chemical_symbols
    return symbols[number] if 0 < number < len(symbols) else str(number)
