"""What is said on the screen with --quiet and --verbose, and what a log file keeps of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

TRAIN = [
    "train", "--objective=mlm", "--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=128",
    "--threads=1", "--steps=2", "--warmup=0", "--log-every=1", "--out=run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_quiet_leaves_the_result(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, f"--data={tiny_data}", "-q", "--log-file=all.log"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("run\n", "")
    log = Path("all.log").read_text()
    for text in ("objectives: mlm", "step 2/2", "reading the first batch", "exit status 0"):
        assert text in log
    stamped = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ (debug|info|warning|error): |    "
    assert all(re.match(stamped, line) for line in log.splitlines())


@pytest.mark.parametrize(
    "before", [["-q"], ["--quiet"], ["-v", "-q"]], ids=["short", "long", "last"]
)
def test_they_stand_before_the_command_too(
    before: list[str], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*before, *TRAIN, f"--data={tiny_data}", "--dry-run"]) == 0
    assert capsys.readouterr().err == ""


def test_verbose_shows_phases_with_times(
    tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(tiny_data), "-v"]) == 0
    assert re.search(r"^ +\d+\.\d\d s  reading .*manifest\.json$", capsys.readouterr().err, re.M)
    assert main(["data", str(tiny_data)]) == 0
    assert "reading" not in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_warnings_and_errors_are_always_shown_and_recorded(
    quiet: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XLM_DATA_VERIFFY", "1")
    assert main(["data", "nowhere", "--log-file=all.log", *quiet]) == 2
    err, log = capsys.readouterr().err, Path("all.log").read_text()
    for text in ("XLM_DATA_VERIFFY is set", "error: nowhere is not a data set"):
        assert text in err
        assert text in log


def test_a_log_file_is_appended_to() -> None:
    for _ in range(2):
        main(["data", "nowhere", "--log-file=all.log"])
    assert Path("all.log").read_text().count(" error: ") == 2


def test_a_log_file_that_cannot_be_written(refused, tiny_data: Path) -> None:
    command = [*TRAIN, f"--data={tiny_data}", "--log-file=nowhere/all.log"]
    refused(command, "error: --log-file", "nowhere/all.log", "mkdir -p")


def test_other_ranks_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    main(["data", "nowhere", "--log-file=all.log"])
    assert [path.name for path in Path().iterdir()] == ["all.log.rank-1"]


def test_passwords_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["xlm", "data", "http://me:secret@localhost/data"])
    main(["data", "nowhere", "--log-file=all.log"])
    assert "http://localhost/data" in Path("all.log").read_text()


def test_a_bug_is_recorded_with_its_traceback(install, capsys: pytest.CaptureFixture[str]) -> None:
    install(
        "xlm-bug",
        "import click\nfrom xlm_plugins import hookimpl\n\n@hookimpl\ndef xlm_commands(cli):\n"
        "    @cli.command()\n    def bug():\n        'Fail.'\n        1 / 0\n",
    )
    with pytest.raises(ZeroDivisionError):
        main(["bug", "--log-file=all.log"])
    assert "    ZeroDivisionError" in Path("all.log").read_text()


def test_spawned_processes_write_to_the_same_file() -> None:
    program = (
        "import multiprocessing, pathlib\n"
        "from xlm_plugins.core import messages\n"
        "if __name__ == '__main__':\n"
        "    messages.write_to(pathlib.Path('all.log'))\n"
        "    child = multiprocessing.get_context('spawn').Process(\n"
        "        target=messages.warn, args=('from a child',))\n"
        "    child.start()\n"
        "    child.join()\n"
    )
    Path("program.py").write_text(program)
    subprocess.run([sys.executable, "program.py"], check=True, timeout=60)
    assert "warning: from a child" in Path("all.log").read_text()
