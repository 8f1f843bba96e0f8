"""What `make dist` builds: complete, the same every time, installed elsewhere, used to train."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import distributions
import pytest
import repository

from xlm_plugins.cli.new_plugin import plugin_files
from xlm_plugins.core.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1_700_000_000
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def run(*command: str | Path, cwd: Path, minutes: int = 5) -> str:
    """Run a command that must succeed, and return what it printed on standard output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_CONSTRAINT", "PYTHON", "XLM_"))
    }
    environment |= {"XLM_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60 * minutes
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, completed as for a release."""
    copy = tmp_path_factory.mktemp("sources")
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, copy)
    shutil.copy(ROOT / "LICENSE", copy)
    for name in ("xlm_plugins", "plugins", "docs", "recipes", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=NOT_COPIED)
    distributions.complete(copy)
    return copy


@pytest.fixture(scope="module")
def dist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdists and wheels of all distributions."""
    out = tmp_path_factory.mktemp("dist")
    distributions.build_all(sources, out, EPOCH)
    n_projects = len(list(ROOT.glob("plugins/*/*/pyproject.toml"))) + 1
    assert len(list(out.glob("*.whl"))) == len(list(out.glob("*.tar.gz"))) == n_projects
    return out


@pytest.fixture(scope="module")
def wheels(dist: Path) -> list[Path]:
    return sorted(dist.glob("*.whl"))


def environment(folder: Path, wheels: list[Path]) -> Path:
    """The bin folder of an environment with these wheels and this environment's other packages.

    A folder of links to the latter leaves out what `make setup` installed of ours.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    others = folder / "others"
    others.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("xlm_", "__editable__")):
            (others / path.name).symlink_to(path)
    (site / "others.pth").write_text(f"{others}\n")
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, "--ignore-installed", "--no-index", *wheels, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def clean(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with all of our wheels."""
    return environment(tmp_path_factory.mktemp("clean"), wheels)


@pytest.fixture(scope="module")
def alone(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the core, without any plugin."""
    core = [wheel for wheel in wheels if wheel.name.startswith("xlm_plugins-")]
    return environment(tmp_path_factory.mktemp("alone"), core)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_an_index_would_take_them(dist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)


def test_what_an_index_shows_is_whole(wheels: list[Path]) -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    addresses = distributions.links(core["urls"]["Source"])
    links = [f"{name}, {address}" for name, address in addresses.items()]
    for wheel in wheels:
        found = metadata(wheel)
        assert found["License-File"] == "LICENSE", wheel
        assert found.get_all("Project-URL") == links, wheel
        assert found.get_all("Classifier") == core["classifiers"], wheel
        text = str(found.get_payload())
        unlinked = repository.with_absolute_links(text, ROOT, ROOT, "https://elsewhere")
        assert unlinked == text, f"{wheel.name} has relative links in its readme"


def test_links_become_absolute_except_in_code() -> None:
    text = (
        "[`a`](docs/plugins.md#x) `[b](docs)` [c](https://u) [d](#e) [f](docs) ![i](x/j.png)\n"
        "```\n[g](h)\n```\n"
    )
    source = "https://host/repository"
    linked = text.replace("](docs/plugins", f"]({source}/blob/main/docs/plugins")
    linked = linked.replace(" [f](docs)", f" [f]({source}/tree/main/docs)")
    linked = linked.replace("](x/j", f"]({source}/raw/main/x/j")
    assert repository.with_absolute_links(text, ROOT, ROOT, source) == linked


def test_the_sdist_of_the_core_has_what_can_be_read(dist: Path) -> None:
    (sdist,) = dist.glob("xlm_plugins-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    told = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("docs/**/*", "recipes/*", "LICENSE", "CHANGELOG.md", "constraints.txt")
        for path in ROOT.glob(pattern)
    }
    assert told <= names
    assert not {name for name in names if name.startswith(("tests", "plugins"))}


def test_the_same_sources_give_the_same_bytes(sources: Path, dist: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "pkm"  # and files of another day
    shutil.copytree(sources / "plugins" / "layers" / "pkm", again, copy_function=shutil.copy)
    mask = os.umask(0o077)
    try:
        distributions.build(again, tmp_path, EPOCH)
    finally:
        os.umask(mask)
    built = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(built) == 2
    for path in built:
        assert path.read_bytes() == (dist / path.name).read_bytes(), path.name


def test_the_core_alone_tells_at_once_what_is_missing(alone: Path, tmp_path: Path) -> None:
    command = (alone / "xlm-plugins", "train", "--objective", "tlm", "--layer", "pkm")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install xlm-tlm xlm-pkm xlm-sentencepiece" in done.stderr


def test_all_brings_every_plugin_and_nothing_that_is_there(alone: Path, dist: Path) -> None:
    """Above all no other torch, which on Linux would come with gigabytes of CUDA."""
    pip = (sys.executable, "-m", "pip", "--python", alone / "python", "install", "--dry-run")
    told = run(*pip, "--no-index", "--find-links", dist, "xlm-plugins[all]", cwd=dist)
    (line,) = (line for line in told.splitlines() if line.startswith("Would install "))
    wheels = {path.name.split("-")[0].replace("_", "-") for path in dist.glob("*.whl")}
    assert {name.rpartition("-")[0] for name in line.split()[2:]} == wheels - {"xlm-plugins"}


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
        "--threads", "1", "--log-every", "1", "--evaluate-every", "0", "--out", "run", *small,
        cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "config.toml").is_file()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"train"' in line for line in lines) == 3


@pytest.mark.slow
def test_the_demo_in_an_empty_environment(dist: Path, tmp_path: Path) -> None:
    """By pip alone: our wheels from the folder, all else from the index, at the pinned versions."""
    venv.create(tmp_path / "empty", with_pip=True)
    binaries = tmp_path / "empty" / "bin"
    pins = ROOT / "constraints.txt"
    pip = (binaries / "python", "-m", "pip", "install", "--quiet", "--constraint", pins)
    run(*pip, "--find-links", dist, "xlm-plugins[all]", cwd=tmp_path, minutes=30)
    rows = json.loads(run(binaries / "xlm", "plugins", "--json", cwd=tmp_path))
    assert {row["state"] for row in rows} == {"ok"}, rows
    shown = run(binaries / "xlm-plugins", "demo", "--minutes", "0.1", cwd=tmp_path)
    assert "Perplexity and accuracy on the validation verses" in shown
