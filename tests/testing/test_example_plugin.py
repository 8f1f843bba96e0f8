"""Third-party plugins: the template, and what `xlm plugins new` generates from it, in use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from xlm_plugins.cli import new_plugin
from xlm_plugins.cli.main import main
from xlm_plugins.core.registry import KINDS

TEMPLATE = Path(__file__).parents[1] / "example_plugin"
NEW = {
    "gate": ("layer",),
    "tail": ("objective",),
    "letters": ("tokenizer",),
    "mood": ("task",),
    "two-in-1": ("layer", "objective"),
}
"""Names and kinds of the plugins that the tests generate."""
TINY = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--threads=1")


@dataclass(frozen=True)
class Installed:
    """The template and the generated plugins: copies of their sources, and the site folder."""

    sources: Path
    site: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Plugins built and installed by pip, in a folder outside the environment."""
    sources = tmp_path_factory.mktemp("sources")
    # A build leaves files among the sources, so build a copy.
    shutil.copytree(TEMPLATE, sources / "xlm-example", ignore=shutil.ignore_patterns("*.egg-info"))
    for name, kinds in NEW.items():
        chosen = [word for kind in kinds for word in ("--kind", kind)]
        assert main(["plugins", "new", name, *chosen, "--out", str(sources / f"xlm-{name}")]) == 0
    site = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    subprocess.run([*pip, *offline, *map(str, sources.iterdir())], check=True, timeout=120)
    return Installed(sources, site)


@pytest.fixture
def in_reach(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """The plugins on the path for one test, in an empty working directory."""
    monkeypatch.syspath_prepend(str(installed.site))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(installed.site):
            del sys.modules[name]


def own_files(folder: Path) -> dict[str, str]:
    """The text files of a distribution, without those of a build or test run."""
    found = {}
    for pattern in new_plugin.FILES:
        for path in sorted(folder.glob(pattern)):
            found[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.usefixtures("in_reach")
def test_the_list_of_plugins_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    ours = [row for row in rows if row["distribution"] == "xlm-example"]
    assert {(row["kind"], row["name"], row["version"], row["state"]) for row in ours} == {
        (kind, f"example-{kind}", "0.1.0", "ok") for kind in KINDS
    }
    assert main(["--help"]) == 0
    assert "example-parameters" in capsys.readouterr().out


@pytest.mark.usefixtures("in_reach")
def test_a_model_is_trained_with_its_components_only(
    tiny_source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = ("--tokenizer", "example-tokenizer", "--example-tokenizer.lowercase")
    assert main(["prepare", str(tiny_source), "data", *prepare, "--vocab-size", "40"]) == 0
    assert main(["data", "data"]) == 0
    objective = ("--objective", "example-objective", "--example-objective.share", "0.3")
    layer = ("--layer", "example-layer:0+,1", "--example-layer.width", "3")
    train = ("train", *objective, *layer, "--data", "data", "--out", "run", "--steps", "3")
    assert main([*train, *TINY]) == 0
    metrics = Path("run/metrics.jsonl").read_text(encoding="utf-8")
    assert "valid_en_example-objective_ppl" in metrics
    used = json.loads(next(Path("run").rglob("plugins.json")).read_text(encoding="utf-8"))
    assert set(used.values()) == {"xlm-example 0.1.0"}

    capsys.readouterr()
    assert main(["example-parameters", "run"]) == 0
    counts = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert int(counts["encoder.embeddings"]) == 16 * (40 + 512 + 2 + 2)  # tokens .. norm
    assert int(counts["encoder.layers"]) > 2 * (2 * 16 * 3 + 3 + 16)


@pytest.mark.usefixtures("in_reach")
@pytest.mark.parametrize("name", [name for name in NEW if "task" not in NEW[name]])
def test_generated_plugins_can_be_trained_with(
    name: str, tiny_source: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = {k: name if len(NEW[name]) == 1 else f"{name}-{k}" for k in NEW[name]}
    data = str(tiny_data)
    if "tokenizer" in called:
        data = "data"
        prepare = ("--tokenizer", called["tokenizer"], "--vocab-size", "40")
        assert main(["prepare", str(tiny_source), data, *prepare]) == 0
    train = ["train", "--objective", called.get("objective", "mlm"), "--data", data, "--steps", "3"]
    train += ["--layer", called["layer"]] if "layer" in called else []
    assert main([*train, *TINY]) == 0
    used = Path(capsys.readouterr().out.splitlines()[-1]).rglob("plugins.json")
    assert f"xlm-{name} 0.1.0" in next(used).read_text(encoding="utf-8")


@pytest.mark.usefixtures("in_reach")
@pytest.mark.parametrize("task", ["mood", "example-task"])
def test_a_model_is_fine_tuned_for_its_task(task: str, tiny_run: Path) -> None:
    Path("rows").mkdir()
    for name in ("train.en", "valid.en", "test.en", "test.fr"):
        rows = "good\tthe light\nbad\tthe darkness\n" * 8
        Path("rows", f"{name}.tsv").write_text(f"label\ttext\n{rows}")
    command = ("finetune", task, f"--{task}.data", "rows", "--from", str(tiny_run), "--out", "out")
    assert main([*command, "--steps", "2", "--max-length", "16", "--threads", "1"]) == 0
    results = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    assert f"test_fr_{task}_acc" in results


def test_all_pass_their_own_tests(installed: Installed) -> None:
    suites = sorted(str(path) for path in installed.sources.glob("*/tests"))
    assert len(suites) == 1 + len(NEW)
    # Only this import mode allows suites with equal file names in one process.
    command = [sys.executable, "-m", "pytest", "--quiet", "--import-mode=importlib"]
    done = subprocess.run(
        [*command, "--override-ini=filterwarnings=error", "-p", "no:cacheprovider", *suites],
        cwd=installed.sources,
        env={**os.environ, "PYTHONPATH": str(installed.site)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d{2} passed", done.stdout)
    assert "skipped" not in done.stdout


def test_generated_plugins_have_no_trace_of_the_template(installed: Installed) -> None:
    for name in NEW:
        for where, text in own_files(installed.sources / f"xlm-{name}").items():
            assert not re.search(r"example|\bregion|endregion", where + text, re.IGNORECASE), where


def test_generated_plugins_have_the_requested_kinds(installed: Installed) -> None:
    for name, kinds in NEW.items():
        files = own_files(installed.sources / f"xlm-{name}")
        written = {match[1] for where in files if (match := re.search(r"test_(\w+)\.py$", where))}
        assert written == set(kinds)
        hooks = re.findall(r"def (xlm_\w+)", "".join(files.values()))
        assert sorted(hooks) == sorted(f"xlm_{kind}s" for kind in kinds)


def test_generated_plugins_are_formatted(installed: Installed) -> None:
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache"]
        folders = [str(installed.sources / f"xlm-{name}") for name in NEW]
        done = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_template_and_generated_plugins_are_typed(installed: Installed, tmp_path: Path) -> None:
    packages = [str(path.parent) for path in installed.sources.glob("*/src/*/__init__.py")]
    assert len(packages) == 1 + len(NEW)
    # Type checkers do not find an editable install of the core.
    environment = {**os.environ, "MYPYPATH": str(Path(new_plugin.__file__).parents[2])}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--follow-imports=silent", *packages],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout


def test_new_prints_the_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "lens", "--kind", "layer"]) == 0
    _, *commands = filter(None, map(str.strip, capsys.readouterr().out.splitlines()))
    assert commands == [
        "pip install --editable './xlm-lens[dev]'",
        "pytest ./xlm-lens",
        "xlm train --objective mlm --layer lens --steps 20",
    ]
    assert 'name = "xlm-lens"' in Path("xlm-lens/pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (("task",), ["xlm finetune lens --from RUN --lens.data FOLDER"]),
        (
            ("task", "objective"),
            [
                "xlm train --objective lens-objective --steps 20",
                "xlm finetune lens-task --from RUN --lens-task.data FOLDER",
            ],
        ),
    ],
)
def test_the_command_for_a_task_is_finetune(kinds: tuple[str, ...], told: list[str]) -> None:
    _, _, *commands = new_plugin._next_commands("lens", kinds, Path("xlm-lens"))
    assert commands == told


def test_new_writes_to_an_empty_folder_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    command = ["plugins", "new", "lens", "--kind", "layer", "--out", str(out)]
    assert main(command) == 0
    before = own_files(out)
    assert "src/xlm_lens/layer.py" in before
    assert main([*command[:4], "objective", *command[5:]]) == 2
    assert f"{out} already exists" in capsys.readouterr().err
    assert own_files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Lens", "--kind", "layer"], "is not a plugin name"),
        (["3d", "--kind", "layer"], "is not a plugin name"),
        (["a--b", "--kind", "layer"], "is not a plugin name"),
        (["../lens", "--kind", "layer"], "is not a plugin name"),
        (["train", "--kind", "layer"], "section of the core's options"),
        (["xlm-lens", "--kind", "layer"], "xlm plugins new lens"),
        (["plugins", "--kind", "layer"], "xlm_plugins is already installed"),
        (["tlm", "--kind", "layer"], "xlm_tlm is already installed"),
        (["lens", "--kind", "optimizer"], "objective"),
        (["lens"], "--kind"),
    ],
)
def test_new_refuses_invalid_arguments(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert told in err
    assert "Traceback" not in err


def test_regions_of_other_kinds_and_all_markers_are_removed() -> None:
    reduced = new_plugin._reduced(
        "a\nb  # region layer\nc  # region command\n\n\n# region layer\n\n\nd\n"
        "# endregion\n# region objective\ne\n# endregion\n<!-- region layer -->\n\n\nf\n",
        ["layer"],
        n_blank_lines=2,
    )
    assert reduced == "a\nb\n\n\nd\n\n\nf\n"
