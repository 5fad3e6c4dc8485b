"""Files of plain tensors and settings, read without running code from them; others are refused with the remedy."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irrepc.errors import InputError

ENTRIES = ("config", "state_dict")


def read_saved(path: str | Path, reader: str, remedy: str) -> tuple[Any, Any]:
    """The entries "config" and "state_dict" of a dict written by torch.save.

    reader  the function that reads, for messages;  remedy  what to do where the file is another
    Raises FileNotFoundError, or InputError for a file that holds classes, is damaged, or lacks an entry.
    """
    with open(path, "rb") as file:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
            raise InputError(
                f"{reader}: got {path}, which torch cannot read as plain tensors ({type(error).__name__}); expected "
                f"a dict of config and state_dict; {remedy}"
            ) from error
    if not isinstance(found, dict) or not set(ENTRIES) <= found.keys():
        raise InputError(f"{reader}: got {path} without 'config' and 'state_dict'; expected a dict of both; {remedy}")
    return found[ENTRIES[0]], found[ENTRIES[1]]


def read_arrays(path: str | Path, reader: str, remedy: str) -> dict[str, Tensor]:
    """The arrays of a file written by numpy.savez, as tensors; arguments and errors as `read_saved`."""
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
        except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{reader}: got {path}, which numpy cannot read as plain arrays ({type(error).__name__}); expected a "
                f".npz; {remedy}"
            ) from error


def read_settings(path: str | Path, reader: str, remedy: str) -> Any:
    """What a JSON file holds; arguments and errors as `read_saved`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{reader}: got {path}, which is no JSON: {error}; expected the model's arguments; {remedy}"
        ) from error
