"""The TensorBoard writer: event files read back."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from xlm_tensorboard import xlm_step_end
from xlm_tensorboard.writer import tag


def events(path: Path) -> Iterator[Event]:
    """The events of a file, whose records are length, checksum, event, checksum."""
    data, start = path.read_bytes(), 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        record = data[start + 12 : start + 12 + length]
        assert struct.unpack_from("<I", data, start + 8) == (masked_crc32c(data[start:][:8]),)
        assert struct.unpack_from("<I", data, start + 12 + length) == (masked_crc32c(record),)
        yield Event.FromString(record)
        start += length + 16


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves as TensorBoard shows them: a new start hides the values that it supersedes."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run / "tensorboard").iterdir()):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                for name, points in curves.items():
                    curves[name] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_en_mlm_loss", "train/en_mlm_loss"),
        ("valid_en-fr_tlm_alone_ppl", "valid/en-fr_tlm_alone_ppl"),
        ("valid_enc.2+_pkm_kl_weighted", "valid/enc.2+_pkm_kl_weighted"),
        ("learning_rate", "run/learning_rate"),
        ("tokens", "run/tokens"),
    ],
)
def test_tags_have_sections(name: str, expected: str) -> None:
    assert tag(name) == expected


def test_metrics_can_be_read_back(tmp_path: Path) -> None:
    xlm_step_end(tmp_path, 0, {"valid_en_mlm_ppl": 1000.0})
    xlm_step_end(tmp_path, 1, {})
    xlm_step_end(tmp_path, 2, {"train_en_mlm_loss": 6.5, "tokens": 4096})
    assert shown(tmp_path) == {
        "valid/en_mlm_ppl": [(0, 1000.0)],
        "train/en_mlm_loss": [(2, 6.5)],
        "run/tokens": [(2, 4096.0)],
    }
    (path,) = (tmp_path / "tensorboard").iterdir()
    first, *others = events(path)
    assert first.file_version == "brain.Event:2"
    assert all(0 <= event.wall_time - first.wall_time < 60 for event in others)


def test_a_non_finite_loss_is_written(tmp_path: Path) -> None:
    xlm_step_end(tmp_path, 1, {"train_en_mlm_loss": float("inf")})
    assert shown(tmp_path) == {"train/en_mlm_loss": [(1, float("inf"))]}


def test_a_resumed_run_supersedes_the_steps_that_it_repeats(tmp_path: Path) -> None:
    for step in range(1, 7):
        xlm_step_end(tmp_path, step, {"learning_rate": float(step)})
    xlm_step_end(tmp_path, 4, {})  # resumed after a checkpoint at 3; nothing measured yet
    xlm_step_end(tmp_path, 5, {"learning_rate": 50.0})
    points = [(1, 1.0), (2, 2.0), (3, 3.0), (5, 50.0)]
    assert shown(tmp_path) == {"run/learning_rate": points}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_each_run_of_a_process_has_its_own_files(tmp_path: Path) -> None:
    runs = [tmp_path / "first", tmp_path / "second"]
    for number, run in enumerate(runs):
        run.mkdir()
        xlm_step_end(run, 1, {"learning_rate": number + 1.0})
        xlm_step_end(run, 2, {"learning_rate": number + 3.0})
    assert [shown(run)["run/learning_rate"] for run in runs] == [
        [(1, 1.0), (2, 3.0)],
        [(1, 2.0), (2, 4.0)],
    ]


def test_the_library_is_imported_on_the_first_call(tmp_path: Path) -> None:
    program = (
        "import json, sys, pathlib, xlm_tensorboard as plugin\n"
        "sys.modules['torch'] = None\n"  # which the library would import, in seconds
        "before = 'tensorboardX' in sys.modules\n"
        "plugin.xlm_step_end(pathlib.Path(sys.argv[1]), 1, {'tokens': 2.0})\n"
        "print(json.dumps([before, 'tensorboardX' in sys.modules]))"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [False, True]
    assert done.stderr == ""  # an unclosed file would be reported at exit
    assert shown(tmp_path) == {"run/tokens": [(1, 2.0)]}
