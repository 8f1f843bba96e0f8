"""Fixtures of the core's tests."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xlm_plugins.config.settings import Settings
    from xlm_plugins.model.bundle import Bundle


@dataclass
class Faults:
    """What tests did to a run, and what came of it; the table stands at the end of the run."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    lost: dict[str, set[str]] = field(default_factory=dict)

    def inject(self, name: str) -> None:
        """Count a fault: call it where the fault is made."""
        self.injected[name] += 1

    def survive(self, name: str, lost: str = "nothing") -> None:
        """Count a fault as survived: call it after the last assertion.

        :param lost: what a user loses by it, in a word or two.
        """
        assert self.survived[name] < self.injected[name], f"{name!r} was not injected"
        self.survived[name] += 1
        self.lost.setdefault(name, set()).add(lost)

    def table(self) -> list[str]:
        """A Markdown table: what was injected and survived, and what was lost."""
        rows = [
            (name, str(n), str(self.survived[name]), "; ".join(sorted(self.lost.get(name, "?"))))
            for name, n in sorted(self.injected.items())
        ]
        total = (str(sum(counts.values())) for counts in (self.injected, self.survived))
        rows = [("fault", "injected", "survived", "lost"), *rows, ("all", *total, "")]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [" | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        lines.insert(1, "-|-".join("-" * width for width in widths))
        return [f"| {line} |" if n != 1 else f"|-{line}-|" for n, line in enumerate(lines)]


FAULTS = pytest.StashKey[Faults]()


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Counts faults for the table that `make test-faults` ends with.

    ``faults.inject("a byte flipped in a checkpoint")``, the assertions, and then
    ``faults.survive("a byte flipped in a checkpoint", lost="nothing")``.
    """
    return request.config.stash.setdefault(FAULTS, Faults())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = terminalreporter.config.stash.get(FAULTS, None)
    if found and found.injected:
        terminalreporter.section("faults")
        terminalreporter.write("\n".join(found.table()) + "\n")


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English and French of the embedded corpus, alone and paired: 1,000 verses, few held out."""
    from xlm_plugins.data.prepare.embedded import embedded_sentences

    folder = tmp_path_factory.mktemp("tiny") / "text"
    folder.mkdir()
    for split, n_verses in (("train", 1000), ("valid", 40), ("test", 30)):
        for language in ("en", "fr"):
            text = "\n".join(embedded_sentences(split, language)[:n_verses]) + "\n"
            for stream in (language, f"en-fr.{language}"):
                (folder / f"{split}.{stream}.txt").write_text(text, encoding="utf-8")
    return folder


def prepared(source: Path, out: Path, vocabulary_size: int) -> Path:
    """A data set of a folder of text, with a vocabulary of its own."""
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.data.prepare.prepare import TokenizerTraining, prepare
    from xlm_plugins.data.prepare.sources import Sources

    component = Plugins.discover().get("tokenizer", "sentencepiece")
    training = TokenizerTraining(vocabulary_size, component.options())
    prepare(Sources.open(source), out, component, training, workers=1)
    return out


@pytest.fixture(scope="session")
def tiny_data(tiny_source: Path) -> Path:
    """`tiny_source` with a vocabulary of 400: quick to train on.  For reading only."""
    return prepared(tiny_source, tiny_source.with_name("data"), 400)


@pytest.fixture(scope="session")
def other_data(tiny_source: Path) -> Path:
    """The text of `tiny_data` in another vocabulary, of 450.  For reading only."""
    return prepared(tiny_source, tiny_source.with_name("other"), 450)


@pytest.fixture(scope="session")
def tiny_settings(tiny_data: Path) -> Callable[..., Settings]:
    """Settings of a run of a second: a tiny model, 12 updates on `tiny_data`.

    ``tiny_settings(steps=4)`` changes options of ``[train]``.
    """
    from xlm_plugins.config.settings import resolve
    from xlm_plugins.core.plugins import Plugins

    plugins = Plugins.discover()

    def settings(**options: Any) -> Settings:
        train = {**TINY_TRAIN, "data": str(tiny_data), **options}
        sections: dict[str, Any] = {"model": TINY_MODEL, "optimizer": {"lr": 1e-2, "warmup": 2}}
        if train["layer"]:
            sections["pkm"] = {"n_keys": 8, "knn": 4, "heads": 2, "k_dim": 8}
        return resolve({}, {**sections, "train": train}, plugins)

    return settings


TINY_MODEL = {"dim": 16, "n_layers": 2, "n_heads": 2}
TINY_TRAIN = {
    "objective": ["mlm", "tlm:en-fr"],
    "layer": ["pkm"],
    "steps": 12,
    "batch_tokens": 256,
    "window": 32,
    "evaluate_every": 4,
    "save_every": 1,
    "keep": 4,
    "log_every": 3,
    "threads": 1,
}


@pytest.fixture(scope="session")
def tiny_run(tiny_settings: Callable[..., Settings], tiny_data: Path) -> Path:
    """A finished run with `tiny_settings`.  For reading only."""
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.training.pretraining.job import train

    return train(tiny_settings(out=str(tiny_data.with_name("run"))), Plugins.discover()).path


@pytest.fixture(scope="session")
def clm_run(tiny_settings: Callable[..., Settings], tiny_data: Path) -> Path:
    """A finished run like `tiny_run`, of a causal language model.  For reading only."""
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.training.pretraining.job import train

    settings = tiny_settings(objective=["clm"], layer=[], out=str(tiny_data.with_name("clm")))
    return train(settings, Plugins.discover()).path


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPLIT.LANGUAGE.tsv of a rule, which of two words stands in a sentence; none comes twice.

    For reading only.
    """
    telling = {"en": {"good": "God", "bad": "king"}, "fr": {"good": "Dieu", "bad": "roi"}}
    others = {
        "en": ("the", "said", "and", "son", "house"),
        "fr": ("le", "dit", "et", "fils", "maison"),
    }
    folder, rng, seen = tmp_path_factory.mktemp("toy"), random.Random(2), set()
    for split, n_rows in (("train", 192), ("valid", 40), ("test", 60)):
        for language in ("en",) if split == "train" else ("en", "fr"):
            rows: list[str] = []
            while len(rows) < n_rows:
                label = ("good", "bad")[len(rows) % 2]
                words = rng.choices(others[language], k=6)
                words[rng.randrange(6)] = telling[language][label]
                if (text := " ".join(words)) not in seen:
                    rows.append(f"{label}\t{text}\n")
                    seen.add(text)
            (folder / f"{split}.{language}.tsv").write_text("label\ttext\n" + "".join(rows))
    return folder


@pytest.fixture(scope="session")
def toy_command(toy_files: Path) -> Callable[..., list[str]]:
    """The command of 48 updates on `toy_files`, trained in English and tested in both languages.

    ``toy_command(base, out, "--lr=1e-3", test="x.en.tsv")``: flags, and other files of a split.
    """

    def command(base: Path | str, out: Path, *flags: str, **instead: str) -> list[str]:
        files = {"train": f"{toy_files}/train.en.tsv"}
        files |= {s: f"{toy_files}/{s}.en.tsv,{toy_files}/{s}.fr.tsv" for s in ("valid", "test")}
        named = [f"--classify.{split}={given}" for split, given in (files | instead).items()]
        return [
            "finetune", "classify", f"--from={base}", f"--out={out}", *named, "--epochs=4",
            "--batch-sentences=16", "--lr=1e-2", "--head-lr=1e-2", "--warmup=4",
            "--max-length=32", "--log-every=3", "--threads=1", *flags,
        ]  # fmt: skip

    return command


@pytest.fixture(scope="session")
def toy_run(toy_command: Callable[..., list[str]], tiny_run: Path) -> Path:
    """A finished run of `toy_command` from `tiny_run`.  For reading only."""
    from xlm_plugins.cli.main import main

    out = tiny_run.with_name("toy-run")
    assert main(toy_command(tiny_run, out)) == 0
    return out


@pytest.fixture(scope="session")
def random_bundle() -> Callable[..., Bundle]:
    """Make a model, trained in name only, whose answers are far from alike.

    ``random_bundle("clm", "mt", languages=("en",), max_positions=64)``: the objectives that it
    names, and options.  It reads the words a to l, or by a saved tokenizer: ``tokenizer=FOLDER``;
    ``spread``: how far its weights lie from a fresh model's.
    """
    import torch

    from xlm_plugins.config.model import ModelOptions
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.core.saved_tokenizers import load_tokenizer
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.description import ChosenObjective, ModelDescription
    from xlm_plugins.testing.words import WordTokenizer

    shape = {"dim": 16, "n_layers": 3, "n_heads": 4, "max_positions": 32}

    def bundle(
        *objectives: str,
        languages: tuple[str, ...] = ("en", "fr"),
        tokenizer: Path | None = None,
        spread: float = 0.5,
        **options: Any,
    ) -> Bundle:
        registry = Plugins.discover()
        reader = load_tokenizer(registry, tokenizer) if tokenizer else WordTokenizer("abcdefghijkl")
        components = [registry.get("objective", name) for name in objectives]
        description = ModelDescription(
            ModelOptions(**(shape | options)),
            reader.vocabulary(),
            {language: number for number, language in enumerate(languages)},
            ("encoder", "decoder") if "mt" in objectives else ("encoder",),
            objectives=tuple(ChosenObjective(c, c.options()) for c in components),
        )
        torch.manual_seed(4)
        built = description.build_objectives()
        model = description.build_model(built).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += spread * torch.randn_like(parameter)
        return Bundle(Path("my-run"), description, model, reader, built)

    return bundle


@pytest.fixture
def piped(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, bytes, str]]:
    """Run a command in this process; gives its status, standard output and standard error.

    ``piped("embed", run, "--json-lines", content="a line\\n")``
    """
    from xlm_plugins.cli.main import main

    def piped(*arguments: object, content: str | bytes = "") -> tuple[int, bytes, str]:
        content = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        command, run, *others = map(str, arguments)
        status = main([command, run, "--threads=1", *others])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return piped


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a distribution with one plugin for this test: a real dist-info folder on the path.

    ``install("xlm-x", source)`` writes the module ``xlm_x`` and its entry point, and returns the
    folder to put on PYTHONPATH where a process of its own shall see it.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str, *, version: str = "1.0", requires: str = "") -> Path:
        module = name.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requires}"] if requires else []
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[xlm]\n{name.removeprefix('xlm-')} = {module}\n")
        return site

    return install


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `xlm` in an empty folder; it must refuse, tell these facts, and write nothing.

    ``refused(arguments, *facts)`` returns what was told.
    """
    from xlm_plugins.cli.main import main

    monkeypatch.chdir(tmp_path)

    def refused(arguments: Sequence[str | Path], *facts: str | Path) -> str:
        before = _content(tmp_path)
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == 2, err
        assert out == ""
        assert "Traceback" not in err
        for fact in facts:
            assert str(fact) in err
        assert _content(tmp_path) == before
        return err

    return refused


def _content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def as_ranks() -> Callable[..., list[int]]:
    """Runs a command in processes that are ranks of one run, within a time limit."""

    def run(
        arguments: Sequence[str | Path], n_processes: int, log: Path, seconds: int
    ) -> list[int]:
        """Their exit statuses; Python gets the arguments, and what is printed goes to ``log``."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = {
            "WORLD_SIZE": str(n_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
        }
        processes = []
        with log.open("a") as file:
            for rank in range(n_processes):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *arguments], env={**os.environ, **world, **own},
                        stdout=file, stderr=file, start_new_session=True,
                    )
                )  # fmt: skip
        try:
            return [process.wait(seconds) for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    return run
