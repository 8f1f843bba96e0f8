"""Checkpoints are whole or absent, and the right ones are kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlm_plugins.core.errors import BundleError
from xlm_plugins.runs.whole_folders import (
    clear_leftovers,
    latest_good,
    locate,
    prune,
    verify,
    write_folder,
)
from xlm_plugins.training.engines.training_state import (
    TrainingState,
    load_training_state,
    save_training_state,
)


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text("alpha")
    (folder / "inside").mkdir()
    (folder / "inside" / "b.txt").write_text("beta")


def steps(folder: Path, *numbers: int) -> list[Path]:
    for number in numbers:
        write_folder(folder / f"step-{number}", fill)
    return [folder / f"step-{number}" for number in numbers]


def test_a_folder_is_written_whole_with_checksums(tmp_path):
    write_folder(tmp_path / "new" / "step-1", fill)
    folder = tmp_path / "new" / "step-1"
    checksums = json.loads((folder / "checksums.json").read_text())
    assert set(checksums) == {"a.txt", "inside/b.txt"}
    assert checksums["a.txt"]["size"] == 5
    assert os.listdir(tmp_path / "new") == ["step-1"]
    verify(folder)


def test_a_failure_leaves_nothing_and_keeps_the_old_folder(tmp_path):
    write_folder(tmp_path / "best", fill)

    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "best", fail)
    assert os.listdir(tmp_path) == ["best"]
    verify(tmp_path / "best")
    assert (tmp_path / "best" / "a.txt").read_text() == "alpha"


def test_a_folder_of_that_name_is_replaced(tmp_path):
    write_folder(tmp_path / "best", fill)
    write_folder(tmp_path / "best", lambda folder: (folder / "c").write_text("new"))
    assert sorted(os.listdir(tmp_path / "best")) == ["c", "checksums.json"]
    assert os.listdir(tmp_path) == ["best"]


def test_a_killed_save_keeps_the_last_checkpoint_and_is_cleared_away(tmp_path):
    steps(tmp_path, 1)
    code = (
        "import os, pathlib\n"
        "from xlm_plugins.runs.whole_folders import write_folder\n"
        "def fill(folder):\n"
        "    (folder / 'a.txt').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
        f"write_folder(pathlib.Path({str(tmp_path)!r}) / 'step-2', fill)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    found, ((torn, why),) = latest_good(tmp_path)
    assert (found, torn) == (tmp_path / "step-1", tmp_path / "step-2")
    assert why == "step-2 was not saved completely"
    steps(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-3"]


def test_a_folder_is_restored_after_a_kill_during_its_replacement(tmp_path):
    write_folder(tmp_path / "best", fill)
    (tmp_path / "best").rename(tmp_path / ".best.old")
    shutil.copytree(tmp_path / ".best.old", tmp_path / ".best.partial")
    assert locate(tmp_path / "best") == tmp_path / ".best.old"
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["best"]
    assert locate(tmp_path / "best") == tmp_path / "best"
    verify(tmp_path / "best")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "a.txt").write_text("alphb"), "a.txt is damaged"),
        (lambda folder: (folder / "a.txt").write_text("al"), "a.txt is truncated"),
        (lambda folder: (folder / "inside" / "b.txt").unlink(), "b.txt is missing"),
        (lambda folder: (folder / "checksums.json").unlink(), "no checksums.json"),
        (lambda folder: (folder / "checksums.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "checksums.json").write_text("[1]"), "cannot be read"),
    ],
)
def test_damage_is_found_and_the_file_named(tmp_path, damage, told):
    first, second = steps(tmp_path, 9, 10)
    damage(second)
    with pytest.raises(BundleError, match=told):
        verify(second)
    found, rejected = latest_good(tmp_path)
    assert found == first
    assert [path for path, _ in rejected] == [second]
    assert told in rejected[0][1]


def test_without_a_completed_checkpoint_there_is_none(tmp_path):
    assert latest_good(tmp_path / "absent") == (None, [])
    (tmp_path / ".step-1.partial").mkdir()
    found, rejected = latest_good(tmp_path)
    assert found is None
    assert [path.name for path, _ in rejected] == ["step-1"]


def test_if_all_are_damaged_the_run_does_not_start_over(tmp_path):
    for folder in steps(tmp_path, 1, 2):
        (folder / "a.txt").unlink()
    with pytest.raises(BundleError, match=r"no checkpoint is intact: .*step-2.*; .*step-1") as told:
        latest_good(tmp_path)
    assert f"delete {tmp_path}" in told.value.remedy


def test_the_newest_by_number_are_kept(tmp_path):
    steps(tmp_path, 8, 9, 10, 100)
    (tmp_path / "notes").mkdir()
    prune(tmp_path, 100, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["notes", "step-10", "step-100"]
    prune(tmp_path, 100, keep=5)
    assert latest_good(tmp_path)[0] == tmp_path / "step-100"


def test_skipped_checkpoints_do_not_count_as_new(tmp_path):
    """A run that resumed from step 8, since 12 was damaged, has saved step 10."""
    steps(tmp_path, 6, 8, 10, 12)
    prune(tmp_path, 10, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-10", "step-8"]


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_end_the_run(tmp_path, monkeypatch):
    """On NFS a folder stays while one of its files is being read."""

    def busy(*_, **__):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    steps(tmp_path, 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", busy)
        prune(tmp_path, 2, keep=1)
    assert sorted(os.listdir(tmp_path)) == [".step-1.gone", "step-2"]
    steps(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["step-2", "step-3"]


def test_a_training_state_is_read_as_it_was_written(tmp_path):
    state = TrainingState(
        weights={"a.weight": torch.randn(3, 4).t(), "count": torch.tensor(7)},
        moments={
            "exp_avg": {"a.weight": torch.ones(4, 3)},
            "exp_avg_sq": {"a.weight": torch.zeros(4, 3)},
        },
        n_updates=12,
        loss_scale={"cur_scale": 65536.0, "cur_iter": 3},
    )
    save_training_state(tmp_path, state)
    back = load_training_state(tmp_path)
    assert (back.n_updates, back.loss_scale) == (12, state.loss_scale)
    assert back.weights.keys() == state.weights.keys()
    assert torch.equal(back.weights["a.weight"], state.weights["a.weight"])
    assert back.weights["count"].dtype == torch.int64
    assert torch.equal(back.moments["exp_avg"]["a.weight"], torch.ones(4, 3))
    assert torch.equal(back.moments["exp_avg_sq"]["a.weight"], torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_an_unreadable_state_names_the_file(tmp_path, name):
    save_training_state(
        tmp_path, TrainingState({"a": torch.ones(2)}, {"exp_avg": {"a": torch.ones(2)}})
    )
    (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(BundleError, match=name):
        load_training_state(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_training_state(tmp_path)
