"""Checkpoints that are pickles: what they may contain, and that nothing in them is run."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins.core.errors import BundleError
from xlm_plugins.interop.pickles import ArrayStandIn, read_checkpoint

Saved = Callable[..., Path]
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])


class Calls:
    """Pickles as a function call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@FORMATS
def test_what_published_checkpoints_hold(saved: Saved, new: bool) -> None:
    content = {
        "model": OrderedDict(weight=torch.arange(6.0).view(2, 3)),
        "params": {
            "emb_dim": 8,
            "langs": ["en", "fr"],
            "clm_steps": [("en", None)],
            "pred_probs": torch.tensor([0.8, 0.1, 0.1]),
            "mask_scores": np.arange(4),
            "rate": np.float64(0.25),
            "n_words": np.int64(60),
            "fast": np.bool_(True),
        },
        "args": argparse.Namespace(arch="roberta_base"),
    }
    found = read_checkpoint(saved(content, _use_new_zipfile_serialization=new))
    assert torch.equal(found["model"]["weight"], content["model"]["weight"])
    params = found["params"]
    assert isinstance(params.pop("mask_scores"), ArrayStandIn)
    assert params.pop("pred_probs").tolist() == pytest.approx([0.8, 0.1, 0.1])
    plain = {"emb_dim": 8, "langs": ["en", "fr"], "clm_steps": [("en", None)]}
    assert params == {**plain, "rate": 0.25, "n_words": 60, "fast": True}
    assert found["args"].arch == "roberta_base"


@FORMATS
@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, f"{os.name}.mkdir"), (eval, "eval"), (Path, "pathlib.Path")]
)
def test_a_call_is_refused_and_not_made(
    saved: Saved, tmp_path: Path, new: bool, function: Callable[..., Any], name: str
) -> None:
    made = tmp_path / "made"
    argument = f"open({str(made)!r}, 'w')" if function is eval else str(made)
    path = saved({"model": Calls(function, argument)}, _use_new_zipfile_serialization=new)
    with pytest.raises(BundleError, match=f"names {name}, .* nothing was run"):
        read_checkpoint(path)
    assert not made.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_is_refused_by_the_name_that_it_calls(tmp_path: Path, protocol: int) -> None:
    path, made = tmp_path / "plain.pth", tmp_path / "made"
    path.write_bytes(pickle.dumps({"model": Calls(os.mkdir, str(made))}, protocol))
    with pytest.raises(BundleError, match=rf"names {os.name}\.mkdir"):
        read_checkpoint(path)
    assert not made.exists()


def test_an_array_of_objects_is_not_built(saved: Saved) -> None:
    """numpy trusts the type and the content in a pickle."""
    path = saved({"params": np.array([{"a": 1}, None], dtype=object)})
    assert isinstance(read_checkpoint(path)["params"], ArrayStandIn)


def test_a_number_of_an_odd_type_is_refused(saved: Saved) -> None:
    with pytest.raises(BundleError, match="a number of type 'V8'"):
        read_checkpoint(saved({"params": np.zeros(1, "V8")[0]}))


def test_numbers_of_another_byte_order(saved: Saved) -> None:
    content = {"rate": np.array([0.25], ">f8")[0], "array": np.arange(3, dtype=">i4")}
    assert read_checkpoint(saved(content))["rate"] == 0.25


@FORMATS
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file(saved: Saved, new: bool, share: float) -> None:
    content = {"model": {"weight": torch.ones(1000)}, "params": {}}
    path = saved(content, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BundleError, match="something else, or truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"\x80\x02}q\x00.", bytes(64)])
def test_a_file_that_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="something else, or truncated"):
        read_checkpoint(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(BundleError, match="is a folder"):
        read_checkpoint(tmp_path)
