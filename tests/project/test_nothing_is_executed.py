"""Reading a checkpoint, model, tokenizer or data set never runs code from its files."""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlm_plugins import XLMError
from xlm_plugins.cli.main import main
from xlm_plugins.core.files import checksum, write_json
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.whole_folders import CHECKSUMS_NAME, verify
from xlm_plugins.training.engines.training_state import load_training_state

ROOT = Path(__file__).resolve().parents[2]
RUNS_CODE = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _object_array(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([bomb], dtype=object), allow_pickle=True)
    return file.getvalue()


def _torch_file(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    torch.save({"model": bomb}, file)
    return file.getvalue()


MALICIOUS = {
    "pickle": lambda bomb: pickle.dumps(bomb),
    "torch": _torch_file,
    "numpy": _object_array,
}


@pytest.fixture(params=MALICIOUS)
def malicious(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    return MALICIOUS[request.param](Bomb(tmp_path / "executed"))


def _files(folder: Path) -> list[Path]:
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def _seal_again(folder: Path) -> None:
    """Rewrite the checksums to match the files, as an attacker would."""
    expected = json.loads((folder / CHECKSUMS_NAME).read_text())
    for name in expected:
        path = folder / name
        expected[name] = {"sha256": checksum(path), "size": path.stat().st_size}
    write_json(folder / CHECKSUMS_NAME, expected)


def test_the_files_run_code_when_they_are_unpickled(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    for make in MALICIOUS.values():
        content = make(Bomb(tmp_path / "executed"))
        if content.startswith(b"PK"):
            torch.load(io.BytesIO(content), weights_only=False)
        elif content.startswith(b"\x93NUMPY"):
            np.load(io.BytesIO(content), allow_pickle=True)
        else:
            pickle.loads(content)
        (tmp_path / "executed").unlink()


@pytest.fixture
def checkpoint(tiny_run: Path, tmp_path: Path) -> Path:
    """The only checkpoint of a run."""
    shutil.copytree(tiny_run, tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").glob("step-[!9]*"):
        shutil.rmtree(folder)
    return tmp_path / "run" / "checkpoints" / "step-9"


def test_a_checkpoint(checkpoint: Path, tmp_path: Path, malicious: bytes) -> None:
    """Reading any replaced file is an error, even with matching checksums."""
    for name in _files(checkpoint):
        before = {path: (checkpoint / path).read_bytes() for path in (name, CHECKSUMS_NAME)}
        (checkpoint / name).write_bytes(malicious)
        with pytest.raises(XLMError):
            verify(checkpoint)
        if str(name) != CHECKSUMS_NAME:
            _seal_again(checkpoint)
            with pytest.raises(XLMError):
                _read(checkpoint)
        for path, content in before.items():
            (checkpoint / path).write_bytes(content)
    assert not (tmp_path / "executed").exists()
    _read(checkpoint)


@pytest.mark.faults
def test_a_resume(checkpoint: Path, tmp_path: Path, faults: Any) -> None:
    """The whole command, on a checkpoint with matching checksums.

    It reads neither the recorded plugins nor the tokenizer, which the data set has too.
    """
    fault, names, run = "a malicious pickle in a checkpoint", _files(checkpoint), tmp_path / "again"
    for name in names:
        shutil.copytree(tmp_path / "run", run)
        faults.inject(fault)
        (run / "checkpoints" / "step-9" / name).write_bytes(
            pickle.dumps(Bomb(tmp_path / "executed"))
        )
        if str(name) != CHECKSUMS_NAME:
            _seal_again(run / "checkpoints" / "step-9")
        status = main(["train", f"--resume={run}"])
        is_read = str(name) != "plugins.json" and name.suffix in (".json", ".safetensors")
        assert status == (2 if is_read else 0), name
        assert not (tmp_path / "executed").exists(), name
        faults.survive(fault)
        shutil.rmtree(run)


def _read(checkpoint: Path) -> None:
    """Everything that reads a checkpoint, for inference and for resuming."""
    from xlm_plugins.training.trainer import TrainerState

    Bundle.load(checkpoint, Plugins.discover())
    load_training_state(checkpoint)
    TrainerState.read(checkpoint)


def test_a_tokenizer(tiny_data: Path, tmp_path: Path, malicious: bytes) -> None:
    folder = tmp_path / "tokenizer"
    for name in _files(tiny_data / "tokenizer"):
        shutil.copytree(tiny_data / "tokenizer", folder)
        (folder / name).write_bytes(malicious)
        with pytest.raises(XLMError):
            load_tokenizer(Plugins.discover(), folder)
        shutil.rmtree(folder)
    assert not (tmp_path / "executed").exists()


def test_a_data_set(tiny_data: Path, tmp_path: Path, malicious: bytes) -> None:
    """Its manifest, its counts, and everything in its shards."""
    data = tmp_path / "data"
    command = ["train", "--objective=mlm:en", "--steps=1", "--dim=16", "--n-heads=2"]
    command += ["--batch-tokens=256", "--window=32", f"--data={data}", "--threads=1"]
    for name in (Path("manifest.json"), Path("token_counts.npy"), None):
        shutil.copytree(tiny_data, data)
        for path in [data / name] if name else data.rglob("*.tar"):
            size = path.stat().st_size
            path.write_bytes(malicious if name else (malicious * (size // len(malicious) + 1)))
        main([*command, f"--out={tmp_path / f'run-{name}'}"])
        shutil.rmtree(data)
    assert not (tmp_path / "executed").exists()


def calls_that_run_files(tree: ast.AST) -> Iterator[str]:
    """The lines of a module that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            names = {module or "", *(alias.name for alias in node.names)}
            if {name.partition(".")[0] for name in names} & RUNS_CODE:
                yield f"line {node.lineno}: imports {', '.join(sorted(names))}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in ("eval", "exec") or (
                called == "torch.load" and given.get("weights_only") != "True"
            ):
                yield f"line {node.lineno}: {ast.unparse(node)}"
            if given.get("allow_pickle", "False") != "False":
                yield f"line {node.lineno}: {ast.unparse(node)}"


def test_no_module_can_run_code_from_a_file() -> None:
    """Except the contract checks in `testing`, which pickle their own objects only."""
    modules = [
        path
        for folder in (ROOT / "xlm_plugins", *(ROOT / "plugins").glob("*/*/src"))
        for path in folder.rglob("*.py")
        if (ROOT / "xlm_plugins" / "testing") not in path.parents
    ]
    assert len(modules) > 100
    found = {
        str(path.relative_to(ROOT)): list(calls_that_run_files(ast.parse(path.read_text())))
        for path in modules
    }
    assert not {name: faults for name, faults in found.items() if faults}
    torch_load = [path for path in modules if "torch.load(" in path.read_text()]
    assert {path.parent.name for path in torch_load} <= {"interop"}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from dill import load", "torch.load(path)", "np.load(p, allow_pickle=x)",
        "torch.load(path, weights_only=False)", "eval(text)",
    ],
)  # fmt: skip
def test_the_check_finds_faults(text: str) -> None:
    assert len(list(calls_that_run_files(ast.parse(text)))) == 1
