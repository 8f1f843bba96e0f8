"""The wheels: built, installed out of reach of the checkout, and used to train."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from xlm_plugins.cli.new_plugin import plugin_files
from xlm_plugins.core.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and return what it printed on standard output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "XLM_"))
    }
    environment |= {"XLM_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheels of all distributions, built from a copy: a build leaves files beside sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("xlm_plugins", "plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=NOT_COPIED)
    projects = [copy, *(path.parent for path in copy.glob("plugins/*/*/pyproject.toml"))]
    out = copy / "wheels"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--no-index", "--wheel-dir", out, *projects, cwd=copy)
    built = sorted(out.glob("*.whl"))
    assert len(built) == len(projects)
    return built


@pytest.fixture(scope="module")
def clean(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with our wheels and this environment's other packages.

    A .pth line adds this environment's packages behind the wheels; their own .pth files, by
    which editable installs point to the checkout, are not read.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "third-parties.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, "--ignore-installed", "--no-index", *wheels, cwd=folder)
    return folder / "bin"


def test_the_wheels_and_not_the_checkout_are_in_use(clean: Path, tmp_path: Path) -> None:
    where = "import xlm_plugins, xlm_tlm, xlm_pkm; print(xlm_plugins.__file__, xlm_tlm.__file__)"
    for path in run(clean / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(clean.parent)


def test_every_plugin_works_from_its_wheel(clean: Path, wheels: list[Path], tmp_path: Path) -> None:
    rows = json.loads(run(clean / "xlm", "plugins", "--json", cwd=tmp_path))
    assert {row["state"] for row in rows} == {"ok"}, rows
    assert len({row["distribution"] for row in rows}) == len(wheels) - 1


def test_the_wheel_has_all_of_the_template(clean: Path, tmp_path: Path) -> None:
    chosen = [word for kind in KINDS for word in ("--kind", kind)]
    run(clean / "xlm", "plugins", "new", "lens", *chosen, cwd=tmp_path)
    folder = tmp_path / "xlm-lens"
    written = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert written == plugin_files("lens", KINDS)


def test_a_few_steps_on_the_embedded_corpus_in_an_empty_folder(clean: Path, tmp_path: Path) -> None:
    small = ("--dim=32", "--n-layers=2", "--n-heads=2", "--batch-tokens=1024", "--pkm.n-keys=32")
    run(
        clean / "xlm", "train", "--objective", "tlm", "--layer", "pkm", "--steps", "3",
        "--threads", "1", "--log-every", "1", "--out", "run", *small, cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "config.toml").is_file()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"train"' in line for line in lines) == 3
