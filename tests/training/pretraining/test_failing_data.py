"""Whole runs whose data fails: shards that vanish, servers that die, ranks left with nothing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.data_server import Server, serving

from xlm_plugins.cli.main import main
from xlm_plugins.config.settings import resolve
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.batches.loader import TrainingBatches
from xlm_plugins.data.dataset import retry
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.data.prepare import prepare
from xlm_plugins.data.prepare.sources import Sources
from xlm_plugins.testing.runs import metrics_of
from xlm_plugins.training.pretraining.plan import make_plan

pytestmark = pytest.mark.faults


TRAIN = shlex.split(
    "--dim=16 --n-layers=2 --n-heads=2 --threads=1 --batch-tokens=1024 --window=32 --warmup=2 "
    "--objective=mlm --objective=tlm:en-fr --log-every=5 --evaluate-every=0 --save-every=10"
)


@pytest.fixture(scope="module")
def many_shards(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 300 verses in shards of eight blocks.  For copying only."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "text").mkdir()
    for path in tiny_source.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:300]
        (folder / "text" / path.name).write_text("".join(lines), encoding="utf-8")
    component = Plugins.discover().get("tokenizer", "sentencepiece")
    training = prepare.TokenizerTraining(400, component.options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "SHARD_BLOCKS", 8)
        sources = Sources.open(folder / "text")
        prepare.prepare(sources, folder / "data", component, training, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def whole(many_shards: Path) -> Path:
    """An undisturbed run of 60 updates."""
    run = many_shards.with_name("whole")
    assert main(["train", *TRAIN, f"--data={many_shards}", "--steps=60", f"--out={run}"]) == 0
    return run


@pytest.fixture
def losing(
    many_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Path]:
    """A copy of the data set that loses a shard when a run reaches an update."""
    data = Path(shutil.copytree(many_shards, tmp_path / "data"))
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.0))

    def lose_at(update: int) -> Path:
        make = TrainingBatches.__getitem__

        def make_or_lose(self: TrainingBatches, index: int) -> list[Batch]:
            if index == update:
                (data / "train.en-00002.tar").unlink()
            return make(self, index)

        monkeypatch.setattr(TrainingBatches, "__getitem__", make_or_lose)
        return data

    return lose_at


def test_a_run_whose_shard_vanishes_reports_it_and_resumes_when_it_is_back(
    losing: Callable[[int], Path], many_shards: Path, whole: Path, tmp_path: Path,
    faults: Any, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, data = tmp_path / "run", losing(15)
    faults.inject("a shard that vanishes during training")
    capsys.readouterr()
    status = main(["train", *TRAIN, f"--data={data}", "--steps=60", f"--out={run}"])
    told = capsys.readouterr().err
    assert status == 2
    assert "Traceback" not in told
    assert "train.en-00002.tar is missing" in told
    (data / "train.en-00002.tar").write_bytes((many_shards / "train.en-00002.tar").read_bytes())
    assert main(["train", f"--resume={run}"]) == 0
    assert metrics_of(run) == metrics_of(whole)
    faults.survive("a shard that vanishes during training", "the updates since the last checkpoint")


def test_a_run_leaves_a_vanished_shard_out_and_counts_it(
    losing: Callable[[int], Path], tmp_path: Path, faults: Any
) -> None:
    run = tmp_path / "run"
    faults.inject("a shard that vanishes, --skip-bad-shards")
    flags = [f"--data={losing(15)}", "--skip-bad-shards", f"--out={run}"]
    assert main(["train", *TRAIN, *flags, "--steps=60"]) == 0
    counts = [line["blocks_left_out"] for line in metrics_of(run, "train")]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert 0 < counts[-1] <= 8
    # The shard is missing from the start now.
    assert main(["train", f"--resume={run}", "--steps=70"]) == 0
    assert metrics_of(run)[-1]["step"] == 70
    faults.survive("a shard that vanishes, --skip-bad-shards", "the sentences of the shard")


# Over HTTP


@pytest.fixture
def server(many_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The data set on a server; the cache is empty, and the pauses are short."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(retry, "PAUSES", (0.01, 0.01))
    with serving(many_shards) as server:
        yield server


def test_a_run_from_a_url_equals_one_from_the_folder(
    server: Server, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *TRAIN, f"--data={server.url}", "--steps=60", f"--out={run}"]) == 0
    assert metrics_of(run) == metrics_of(whole)
    assert f'data = "{server.url}"' in (run / "config.toml").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split=valid", "--json", "--threads=1"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(whole), "--split=valid", "--json", "--threads=1"]) == 0
    assert measured == json.loads(capsys.readouterr().out)
    assert main(["data", server.url, "--verify"]) == 0
    assert "all checksums match" in capsys.readouterr().out


def test_a_run_whose_server_dies_resumes_when_it_is_back(
    server: Server, whole: Path, many_shards: Path, tmp_path: Path, faults: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, cache = tmp_path / "run", tmp_path / "small"
    n_bytes = sum(shard.n_bytes for shard in Manifest.load(many_shards).shards)
    flags = [f"--data={server.url}", f"--data-cache={cache}", f"--data-cache-gb={n_bytes / 4e9}"]
    faults.inject("a server that dies during training")
    server.shards_left = 100
    assert main(["train", *TRAIN, *flags, "--steps=60", f"--out={run}"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "cannot be fetched: HTTP 503" in told
    assert 0 < len(metrics_of(run)) < len(metrics_of(whole))
    server.shards_left = 10**9
    assert main(["train", f"--resume={run}"]) == 0
    assert metrics_of(run) == metrics_of(whole)
    assert sum(path.stat().st_size for path in cache.rglob("*.tar")) <= n_bytes / 4
    faults.survive("a server that dies during training", "the updates since the last checkpoint")


# Many ranks


def test_a_rank_left_with_nothing_keeps_up_with_the_others(
    many_shards: Path, tmp_path: Path, as_ranks: Callable[..., list[int]], faults: Any
) -> None:
    """Two processes with few sentences left make the same updates as one."""
    data = Path(shutil.copytree(many_shards, tmp_path / "data"))
    faults.inject("a rank whose whole batch is in shards that are gone")
    for path in data.glob("train.*.tar"):
        if not path.name.endswith("-00001.tar"):
            path.unlink()
    _check_that_a_rank_is_empty(data)
    exact = ["--dropout=0", "--eps=1e-6", "--skip-bad-shards", f"--data={data}", "--steps=20"]
    script = tmp_path / "impatient.py"
    script.write_text(
        "import sys\n"
        "from xlm_plugins.cli.main import main\n"
        "from xlm_plugins.data.dataset import retry\n"
        "retry.PAUSES = ()\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    losses = []
    for n_ranks in (1, 2):
        run, log = tmp_path / f"run-{n_ranks}", tmp_path / f"log-{n_ranks}"
        arguments = [script, "train", *TRAIN, *exact, f"--out={run}"]
        assert as_ranks(arguments, n_ranks, log, 400) == [0] * n_ranks, log.read_text()
        assert "continuing without this shard" in log.read_text()
        lines = metrics_of(run, "train")
        assert lines[-1]["step"] == 20
        assert lines[-1]["blocks_left_out"] > 50
        losses.append([line["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    faults.survive("a rank whose whole batch is in shards that are gone", "what the shards held")


def _check_that_a_rank_is_empty(data: Path) -> None:
    train = {"data": str(data), "objective": ["mlm", "tlm:en-fr"], "batch_tokens": 1024}
    train |= {"window": 32, "skip_bad_shards": True}
    plan = make_plan(resolve({}, {"train": train}, plugins := Plugins.discover()), plugins)
    parts = (plan.folder, plan.manifest, plan.schedule, plan.objectives, plan.sizes, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "PAUSES", ())
        ranks = [TrainingBatches(*parts, rank, 2, skip_bad_shards=True) for rank in range(2)]
        n_targets = [[rank[index][0].n_targets for rank in ranks] for index in range(20)]
    assert any(min(both) == 0 < max(both) for both in n_targets)
