"""The run folder, and finding its models."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from xlm_plugins import BundleError, RunError
from xlm_plugins.config.origins import recorded_origins
from xlm_plugins.core.plugins import Plugins, new_manager
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.runs.folder import RunFolder, free_run_path
from xlm_plugins.runs.history import in_force, read_history
from xlm_plugins.runs.whole_folders import write_folder


@pytest.fixture
def plugins() -> Plugins:
    return Plugins(new_manager())


def _bundle(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, lambda inside: (inside / "model.json").write_text("{}") and None)
    return folder


def test_a_new_run_writes_its_config_and_environment(tmp_path: Path, plugins: Plugins) -> None:
    RunFolder.create(tmp_path / "run", "[train]\n", plugins, {}).close()
    assert (tmp_path / "run" / "config.toml").read_text() == "[train]\n"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["libraries"]["torch"]


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    RunFolder.create(tmp_path, "", plugins, {}).close()
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(tmp_path, "", plugins, {})


def test_a_folder_with_other_files_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path, "", plugins, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_in_use_is_refused_until_it_is_released(tmp_path: Path, plugins: Plugins) -> None:
    first = RunFolder.create(tmp_path, "", plugins, {})
    with pytest.raises(RunError, match="in use"):
        RunFolder.reopen(tmp_path)
    first.close()
    RunFolder.reopen(tmp_path).close()


def test_a_kill_between_history_and_settings_leaves_what_the_next_start_replaces(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "[train]\nsteps = 2\n"
    run = RunFolder.create(tmp_path, first, plugins, {"train.steps": "--steps"})
    with monkeypatch.context() as killed:
        killed.setattr("xlm_plugins.runs.folder.write_text", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            run.start_again(2, "[train]\nsteps = 3\n", {"train.steps": (2, 3)}, plugins, {})
    assert (tmp_path / "config.toml").read_text() == first
    assert recorded_origins(tmp_path) == {"train.steps": "--steps"}
    last = "[train]\nsteps = 4\n"
    run.start_again(2, last, {"train.steps": (2, 4)}, plugins, {"train.steps": "XLM_TRAIN_STEPS"})
    run.close()
    assert (tmp_path / "config.toml").read_text() == last
    assert recorded_origins(tmp_path) == {"train.steps": "XLM_TRAIN_STEPS"}
    assert [start.settings["train"]["steps"] for start in in_force(read_history(tmp_path))] == [
        2,
        4,
    ]


def test_only_runs_can_be_reopened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        RunFolder.reopen(tmp_path)


def test_the_next_free_name(tmp_path: Path) -> None:
    assert free_run_path("tlm-pkm", tmp_path).name == "tlm-pkm-1"
    (tmp_path / "tlm-pkm-1").mkdir()
    assert free_run_path("tlm-pkm", tmp_path).name == "tlm-pkm-2"


def test_a_run_refers_to_its_best_model_or_else_the_last(tmp_path: Path) -> None:
    steps = [_bundle(tmp_path / "checkpoints" / f"step-{n}") for n in (5, 10)]
    assert find_bundle(str(tmp_path)) == steps[1]
    best = _bundle(tmp_path / "best" / "valid_mlm_ppl")
    (tmp_path / "best" / "metrics.json").write_text('["valid_mlm_ppl"]')
    assert find_bundle(str(tmp_path)) == best
    assert find_bundle(f"{tmp_path}@last") == steps[1]
    assert find_bundle(f"{tmp_path}@step-5") == steps[0]
    assert find_bundle(f"{tmp_path}@valid_mlm_ppl") == best
    assert find_bundle(str(best)) == best


def test_a_path_may_have_an_at_sign(tmp_path: Path) -> None:
    run = tmp_path / "me@home"
    step = _bundle(run / "checkpoints" / "step-5")
    assert find_bundle(str(run)) == find_bundle(f"{run}@step-5") == step


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.writing
    folder.remove()
    folder.close()
    assert not folder.path.exists()


def test_a_missing_model_lists_the_existing_ones(tmp_path: Path) -> None:
    _bundle(tmp_path / "checkpoints" / "step-5")
    with pytest.raises(BundleError, match="step-5"):
        find_bundle(f"{tmp_path}@step-7")
    with pytest.raises(BundleError, match="no run or bundle"):
        find_bundle(str(tmp_path / "nowhere"))


def test_a_file_system_without_locks_works(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    RunFolder.create(tmp_path / "run", "", plugins, {}).close()
    RunFolder.reopen(tmp_path / "run").close()


def test_a_best_model_hidden_by_a_kill_is_found_and_restored(
    tmp_path: Path, plugins: Plugins
) -> None:
    RunFolder.create(tmp_path, "", plugins, {}).close()
    best = _bundle(tmp_path / "best" / "valid_mlm_ppl")
    (tmp_path / "best" / "metrics.json").write_text('["valid_mlm_ppl"]')
    aside = best.rename(best.with_name(f".{best.name}.old"))
    assert find_bundle(str(tmp_path)) == find_bundle(f"{tmp_path}@valid_mlm_ppl") == aside
    RunFolder.reopen(tmp_path).close()
    assert find_bundle(str(tmp_path)) == best
    assert not aside.exists()


def test_a_damaged_best_model_is_refused(tmp_path: Path) -> None:
    best = _bundle(tmp_path / "best" / "valid_mlm_ppl")
    (tmp_path / "best" / "metrics.json").write_text('["valid_mlm_ppl"]')
    (best / "model.json").write_text("[]")
    for reference in (str(tmp_path), f"{tmp_path}@valid_mlm_ppl"):
        with pytest.raises(BundleError, match=r"model\.json is damaged"):
            find_bundle(reference)


def test_last_skips_a_damaged_checkpoint(tmp_path: Path) -> None:
    good, torn = (_bundle(tmp_path / "checkpoints" / f"step-{n}") for n in (5, 10))
    (torn / "model.json").write_text("[]")
    assert find_bundle(f"{tmp_path}@last") == good
