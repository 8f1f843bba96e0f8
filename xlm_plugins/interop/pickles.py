"""Checkpoints that are pickles, read without running anything that they name.

A pickle may name any function and have it called.  `torch.load(weights_only=True)` reads with an
unpickler of its own, which knows tensors and plain containers and refuses every other name; what
published checkpoints hold besides is allowed here, one by one.  Nothing of numpy is ever built
from a file: its reader trusts what it is given.
"""

from __future__ import annotations

import argparse
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlm_plugins.core.errors import BundleError

_ZIP = b"PK\x03\x04"
_NUMBER = re.compile(r"[<>=|][biuf]\d")


class ArrayStandIn:
    """Stands where a checkpoint has a numpy array: statistics of training, which nobody needs."""

    def __setstate__(self, state: object) -> None:
        """Let go of the content."""


class _TypeStandIn:
    """Stands for a numpy type: ``f8``."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _array(*_: object) -> ArrayStandIn:
    return ArrayStandIn()


def _number(kind: _TypeStandIn, content: bytes) -> Any:
    """A numpy scalar as Python's own number."""
    written = f"{kind.order}{kind.code}"
    if not _NUMBER.fullmatch(written):
        raise ValueError(f"a number of the type {kind.code!r}")
    return np.frombuffer(content, np.dtype(written))[0].item()


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
ALLOWED: list[Any] = [
    argparse.Namespace,  # attributes and nothing else, as fairseq keeps its options
    (ArrayStandIn, "numpy.ndarray"),
    (_TypeStandIn, "numpy.dtype"),
    *((_array, f"{module}._reconstruct") for module in _NUMPY),
    *((_number, f"{module}.scalar") for module in _NUMPY),
]
"""What a checkpoint may name besides torch's own tensors and containers, and what is called."""


def read_checkpoint(path: Path) -> Any:
    """Read what ``torch.save`` wrote, of today or of old; tensors come to the CPU.

    Tensors of today's files are mapped: each is read from the disk when it is used.  An array of
    numpy comes back as an `ArrayStandIn`, a number of numpy as Python's.

    :raises BundleError: no checkpoint, a truncated one, or one that wants to run code.
    """
    if path.is_dir():
        remedy = "a folder of Hugging Face's or fairseq's: xlm import hf"
        raise BundleError(f"{path} is a folder", expected="a file", remedy=remedy)
    if not path.is_file():
        raise BundleError(
            f"there is no file {path}", expected="a checkpoint, such as mlm_xnli15_1024.pth"
        )
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign protocol, which is then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # whatever a damaged or malicious file makes of the reader
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> BundleError:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    name = wanted[1] if wanted else _first_name(path)
    if name:
        return BundleError(
            f"{path} was not loaded: it names {name}, and to load a name is to let the file call "
            "it; nothing was run",
            expected="tensors, numbers, texts and plain containers of them",
            remedy="take the file from its publisher; if it is your own, load it where you trust "
            "it, and save it again with plain values",
        )
    return BundleError(
        f"{path} cannot be read as a torch checkpoint: it is something else, or truncated "
        f"({type(error).__name__}: {_said(error)})",
        expected="a file that torch.save wrote, whole",
        remedy="compare its size and checksum with the publisher's, or fetch it again",
    )


def _said(error: Exception) -> str:
    """The line of torch's message that says what is wrong."""
    *_, own = str(error).split("WeightsUnpickler error:")
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    return lines[0].partition(". ")[0] if lines else "the file ends too early"


def _first_name(path: Path) -> str:
    """The first function or class that a plain pickle names; empty if it is none, or names none."""
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
