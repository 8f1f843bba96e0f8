"""A folder as people have them: every file is used, or named with the reason why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.core.errors import DataError
from xlm_plugins.data.dataset.health import findings
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare.sources import Sources

_RUSSIAN = "Вначалесотворилбогнебоиземлю\n" * 40
IGNORED = {
    "train.ru.tsv": ".tsv is a table",
    "train.ru.jsonl": ".jsonl is JSON",
    "train.en-ru.tsv.gz": ".tsv is a table",
    "README.md": "about the text",
    "notes.md": ".md is marked-up text",
    "english.txt": "not named SPLIT.LANG.txt",
    "train.en": "not named SPLIT.LANG.txt",
    "ru/doc1.txt": "in a sub-folder",
    "ru/deeper/train.ru.txt": "in a sub-folder",
    ".git": "hidden",
}


@pytest.fixture
def messy(tiny_source: Path, tmp_path: Path) -> Path:
    """English and French to train on, and Russian in every form but the right one."""
    folder = Path(shutil.copytree(tiny_source, tmp_path / "text"))
    (folder / "ru" / "deeper").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    for name in set(IGNORED) - {".git"}:
        (folder / name).write_text(_RUSSIAN, encoding="utf-8")
    (folder / "valid.ru.txt").write_text(_RUSSIAN, encoding="utf-8")
    (folder / "dev.en.txt").write_text("In the beginning\n")
    return folder


def test_every_file_of_a_folder_is_used_or_named_with_the_reason(messy: Path) -> None:
    sources = Sources.open(messy)
    found = {name: group.reason for group in sources.unused for name in group.files}
    assert set(found) == set(IGNORED)
    for name, reason in IGNORED.items():
        assert found[name].startswith(reason), name
    hints = {group.reason.split()[0]: group.hint for group in sources.unused}
    assert "convert it to one sentence per line" in hints[".tsv"]
    assert "TOML" in hints["not"]
    assert "TOML" in hints["in"]
    assert hints["hidden"] == hints["about"] == ""


def test_a_messy_folder_is_prepared_with_warnings_that_go_on(
    messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was ignored, the split that nothing uses, and the language that nobody trains."""
    out = tmp_path / "data"
    command = ["prepare", str(messy), str(out), "--vocab-size", "1500", "--workers", "1"]
    assert main(command) == 0
    told = capsys.readouterr().err
    health = [
        "nothing uses the split dev (dev.en)", "did you mean valid?",
        "ru has held-out text (valid.ru) and no training text", "spells ru out",
    ]  # fmt: skip
    for fact in [*IGNORED, "warning: not used", "note: not used: .git: hidden", *health]:
        assert fact in told
    assert main(["data", str(out)]) == 0
    shown = capsys.readouterr().err
    for fact in [*IGNORED, *health]:
        assert fact in shown
    assert main(["data", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["findings"]) == shown.count("not used") + 3
    train = ["--dim", "16", "--n-layers", "1", "--n-heads", "2", "--threads", "1", "--steps", "1"]
    train += ["--evaluate-every", "0", "--batch-tokens", "256", "--out", str(tmp_path / "run")]
    assert main(["train", "--objective", "mlm", "--data", str(out), *train]) == 0
    log = capsys.readouterr().err
    for fact in health:
        assert fact in log
    assert log.index(health[0]) < log.index("parameters:")


def test_many_files_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ru").mkdir()
    for number in range(2000):
        (tmp_path / "ru" / f"doc{number:04}.txt").touch()
    (tmp_path / "train.en.txt").write_text("a\n")
    (group,) = Sources.open(tmp_path).unused
    assert len(group.files) == 2000
    assert "ru/doc0003.txt and 1,996 more: in a sub-folder" in group.finding().problem


def test_a_folder_without_a_usable_file_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "train.en.tsv").write_text("a\tb\n")
    with pytest.raises(DataError, match=r"no text\nnot used: train.en.tsv: .tsv is a table") as e:
        Sources.open(tmp_path)
    assert "convert" in e.value.remedy


def test_languages_that_were_not_chosen_are_named(tiny_source: Path) -> None:
    (group,) = Sources.open(tiny_source).restricted(["en"]).unused
    assert "train.fr.txt" in group.files
    assert "train.en-fr.en.txt" in group.files
    assert not group.hint


def test_clean_text_gives_no_warning(tiny_data: Path, tiny_source: Path) -> None:
    assert Sources.open(tiny_source).unused == ()
    assert findings(Manifest.load(tiny_data)) == []
