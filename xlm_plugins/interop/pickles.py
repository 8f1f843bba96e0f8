"""Checkpoints that are pickles, read without running anything in them.

A pickle may name any function and have it called.  `torch.load(weights_only=True)` has its own
unpickler, which knows tensors and plain containers and refuses every other name; the few other
things in published checkpoints are allowed here, one by one.  No numpy object is ever built from a
file, since numpy trusts what it is given.
"""

from __future__ import annotations

import argparse
import pickletools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlm_plugins.core.errors import BundleError

_ZIP = b"PK\x03\x04"
_NUMBER = re.compile(r"[<>=|][biuf]\d")


class ArrayStandIn:
    """Replaces a checkpoint's numpy arrays, which are statistics of training that nobody needs."""

    def __setstate__(self, state: object) -> None:
        """Drop the content."""


class _TypeStandIn:
    """Replaces a numpy type, such as ``f8``."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _array(*_: object) -> ArrayStandIn:
    return ArrayStandIn()


def _number(kind: _TypeStandIn, content: bytes) -> Any:
    """A numpy scalar as a Python number."""
    written = f"{kind.order}{kind.code}"
    if not _NUMBER.fullmatch(written):
        raise ValueError(f"a number of type {kind.code!r}")
    return np.frombuffer(content, np.dtype(written))[0].item()


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
ALLOWED: list[Any] = [
    argparse.Namespace,  # attributes only; fairseq keeps its options in one
    (ArrayStandIn, "numpy.ndarray"),
    (_TypeStandIn, "numpy.dtype"),
    *((_array, f"{module}._reconstruct") for module in _NUMPY),
    *((_number, f"{module}.scalar") for module in _NUMPY),
]
"""What a checkpoint may name besides tensors and plain containers, and what is called for it."""


def read_checkpoint(path: Path) -> Any:
    """Read what any version of ``torch.save`` wrote; tensors are put on the CPU.

    Files in the current format are memory-mapped: a tensor is read from disk when it is used.
    numpy arrays are returned as an `ArrayStandIn`, numpy scalars as Python numbers.

    :raises BundleError: it is not a checkpoint, is truncated, or tries to run code.
    """
    if path.is_dir():
        remedy = "for a folder of Hugging Face or fairseq: xlm import hf"
        raise BundleError(f"{path} is a folder", expected="a file", remedy=remedy)
    if not path.is_file():
        raise BundleError(
            f"there is no file {path}", expected="a checkpoint, such as mlm_xnli15_1024.pth"
        )
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an unusual protocol, which is then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # whatever a damaged or malicious file causes
        raise _refusal(path, error) from error


@contextmanager
def malformed_as_error(problem: str, expected: str) -> Iterator[None]:
    """Turn the errors that unexpected content causes in conversion code into the user's error.

    :raises BundleError: ``problem``, and the original error.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(f"{problem}: {reason}", expected=expected) from error


def _refusal(path: Path, error: Exception) -> BundleError:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    name = wanted[1] if wanted else _first_name(path)
    if name:
        return BundleError(
            f"{path} was not loaded: it names {name}, which loading would let the file call; "
            "nothing was run",
            expected="tensors, numbers, strings and plain containers of them",
            remedy="get the file from its publisher; if it is your own, load it where you trust "
            "it, and save it again with plain values",
        )
    return BundleError(
        f"{path} cannot be read as a torch checkpoint: it is something else, or truncated "
        f"({type(error).__name__}: {_reason(error)})",
        expected="a complete file that torch.save wrote",
        remedy="compare its size and checksum with the publisher's, or download it again",
    )


def _reason(error: Exception) -> str:
    """The line of torch's message that gives the reason."""
    *_, own = str(error).split("WeightsUnpickler error:")
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    return lines[0].partition(". ")[0] if lines else "the file ends too early"


def _first_name(path: Path) -> str:
    """The first function or class that a plain pickle names; empty if it is not one or has none."""
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except (ValueError, UnicodeError):
        pass
    return ""
