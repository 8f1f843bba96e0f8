"""The run folder as training uses it: created, locked, written."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO

from xlm_plugins.core.errors import RunError
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.runs.history import Changes, Start, read_history, write_history
from xlm_plugins.runs.layout import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    HISTORY_NAME,
    LOCK_NAME,
    METRICS_NAME,
    ORDER_NAME,
)
from xlm_plugins.runs.metrics_file import MetricsFile
from xlm_plugins.runs.whole_folders import clear_leftovers, flush, prune, storing, write_folder


class RunFolder:
    """A run folder, as one process sees it.

    Rank 0 creates or reopens it, and holds its lock: no other run can write to it meanwhile.  The
    other ranks only know its path.

    :param lock: the locked file, on rank 0.
    """

    def __init__(self, path: Path, lock: IO[str] | None = None) -> None:
        self.path = path
        self._lock = lock
        self.metrics = MetricsFile(path / METRICS_NAME, writing=self.writing)

    @classmethod
    def create(
        cls, path: Path, config: str, plugins: Plugins, settings_from: Mapping[str, str]
    ) -> RunFolder:
        """Create a run folder and lock it.

        :param config: the text of config.toml.
        :param settings_from: where its settings were given, for environment.json.
        :raises RunError: it holds a run, or something else, or is in use.
        """
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        environment = _environment(plugins) | {"settings_from": dict(settings_from)}
        write_history(path, [Start.now("new", 0, {}, config, environment)])
        write_text(path / CONFIG_NAME, config)
        write_json(path / ENVIRONMENT_NAME, environment)
        for written in (path / CONFIG_NAME, path):
            flush(written)
        return cls(path, lock)

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Lock an existing run folder, in order to resume the run.

        :raises RunError: it holds no run, or is in use.
        """
        if not (path / CONFIG_NAME).is_file():
            raise RunError(
                f"{path} holds no run: it has no {CONFIG_NAME}",
                remedy="name the folder of a run, or leave out --resume",
            )
        folder = cls(path, _locked(path))
        for parent in (path / CHECKPOINTS_NAME, path / BEST_NAME):
            clear_leftovers(parent)
        return folder

    def start_again(
        self,
        step: int,
        config: str,
        changed: Changes,
        plugins: Plugins,
        settings_from: Mapping[str, str],
    ) -> None:
        """Write what this start trains with: the history first, then what holds now.

        A kill in between leaves a start that trained nothing, and the next one replaces it.

        :param step: updates made.
        :param config: the text of config.toml.
        :param changed: what differs from the settings of the steps before.
        :param settings_from: as for `create`.
        :raises StorageError: it cannot be written.
        """
        environment = _environment(plugins) | {"settings_from": dict(settings_from)}
        kept = self.path / CONFIG_NAME
        start = Start.now("resumed", step, changed, config, environment)
        with storing(self.path / HISTORY_NAME):
            write_history(self.path, [*read_history(self.path), start])
            flush(self.path / HISTORY_NAME)
            if tomllib.loads(kept.read_text("utf-8")) != start.settings:
                write_text(kept, config)
            write_json(self.path / ENVIRONMENT_NAME, environment)
            for written in (kept, self.path):
                flush(written)

    @property
    def writing(self) -> bool:
        """Whether this process writes; only rank 0 does."""
        return self._lock is not None

    @property
    def hypotheses(self) -> Path:
        """What evaluations translated, in one folder per step."""
        return self.path / "hypotheses"

    def save_checkpoint(self, update: int, fill: Callable[[Path], None], keep: int) -> Path:
        """Write a checkpoint, and remove all but the newest.

        :param update: updates made.
        :param fill: writes the files into the folder that it is given.
        :param keep: number of checkpoints to keep.
        :returns: the checkpoint's folder.
        :raises StorageError: it cannot be written; older ones are intact.
        """
        checkpoints = self.path / CHECKPOINTS_NAME
        written = checkpoints / f"step-{update}"
        with storing(written):
            write_folder(written, fill)
            prune(checkpoints, update, keep)
        return written

    def save_best(
        self, improved: Sequence[str], fill: Callable[[Path], None], metrics: Sequence[str]
    ) -> list[Path]:
        """Write the bundle that is now the best by some metrics.

        :param improved: those metrics.
        :param fill: writes the files into the folder that it is given.
        :param metrics: all metrics that models are kept for; RUN refers to the best by the first.
        :returns: the bundles' folders.
        :raises StorageError: it cannot be written; the earlier best ones are intact.
        """
        best = self.path / BEST_NAME
        written = [best / name for name in improved]
        with storing(best):
            best.mkdir(exist_ok=True)
            write_json(best / ORDER_NAME, list(metrics))
            for folder in written:
                write_folder(folder, fill)
        return written

    def remove(self) -> None:
        """Delete the folder and all its contents, if this process holds it."""
        if self.writing:
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Close the metrics and release the lock."""
        self.metrics.close()
        if self._lock is not None:
            self._lock.close()


def _locked(path: Path) -> IO[str]:
    lock = (path / LOCK_NAME).open("w")
    try:
        # The lock ends with the process, so a killed run never leaves a stale one.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise RunError(
            f"{path} is in use by another run", remedy="wait for it, or choose another --out"
        ) from error
    except OSError:
        pass  # a file system without locks: other runs cannot be detected
    return lock


def free_run_path(name: str, root: Path = Path("runs")) -> Path:
    """``runs/NAME-1``, or with the next free number."""
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"


def _environment(plugins: Plugins) -> dict[str, object]:
    libraries = ("torch", "numpy", "webdataset", "safetensors", "deepspeed")
    installed = {name: v for name in libraries if (v := _version(name))}
    return {
        "command": sys.argv,
        "directory": os.getcwd(),
        "plugins": {s.distribution: s.version for s in plugins.states if s.state == "ok"},
        "xlm-plugins": _version("xlm-plugins"),
        "libraries": installed,
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "git": _git_state(),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except ImportError:
        return None


def _git_state() -> dict[str, object] | None:
    """Commit of the current folder and whether it has changes; None if it is not under git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def check_free(path: Path) -> None:
    """Refuse to start a new run where something else is.

    :raises RunError: the folder holds a run, or something else.
    """
    if (path / CONFIG_NAME).exists():
        raise RunError(
            f"{path} already holds a run",
            remedy=f"resume it, --resume {path}, or choose another --out",
        )
    if path.exists() and any(entry.name != LOCK_NAME for entry in path.iterdir()):
        raise RunError(f"{path} is not empty, and is not a run", remedy="choose another --out")
