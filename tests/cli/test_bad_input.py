"""Errors of the user are reported in plain words, with status 2 and nothing half-written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.dataset import retry
from xlm_plugins.data.dataset.manifest import Manifest
from xlm_plugins.runs.folder import RunFolder
from xlm_plugins.training.trainer import Trainer

Refused = Callable[..., str]
TRAIN = shlex.split(
    "train --objective mlm --objective tlm:en-fr --dim 16 --n-layers 2 --n-heads 2 --threads 1 "
    "--batch-tokens 256 --window 32 --steps 2 --evaluate-every 0"
)


@pytest.fixture
def source(tiny_source: Path, tmp_path: Path) -> Path:
    """A copy of the tiny source, for a test to damage."""
    return Path(shutil.copytree(tiny_source, tmp_path / "text"))


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set, for a test to damage."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for a test to resume."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def _fingerprints(*folders: Path) -> list[str]:
    return [Manifest.load(folder).tokenizer.fingerprint for folder in folders]


# Text


def test_parallel_files_of_different_lengths(source: Path, refused: Refused) -> None:
    side = source / "train.en-fr.fr.txt"
    side.write_text("".join(side.read_text().splitlines(keepends=True)[:-3]))
    told = refused(["prepare", source, "out"], "train.en-fr.en.txt", side)
    assert {"1,000 lines", "997 lines"} <= set(re.findall(r"[\d,]+ lines", told))


@pytest.mark.parametrize("text", ["", "\n \n\n"])
def test_an_empty_file(source: Path, refused: Refused, text: str) -> None:
    (source / "valid.en.txt").write_text(text)
    refused(["prepare", source, "out"], source / "valid.en.txt", "is empty")


def test_bytes_that_are_not_utf8_and_the_hint(
    source: Path, tiny_data: Path, refused: Refused
) -> None:
    path = source / "train.fr.txt"
    lines = path.read_bytes().split(b"\n")
    lines[41] = "Jésus".encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    command = ["prepare", str(source), "out", "--tokenizer-from", str(tiny_data)]
    refused(command, f"{path}, line 42", "not UTF-8", "--errors replace")
    assert main([*command, "--errors", "replace", "--workers", "1"]) == 0
    assert Manifest.load(Path("out")).stream("train", ("fr",)).n_sentences == 1000


def test_a_vocabulary_too_large_for_the_text_and_a_size_that_works(
    tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.en.txt").write_text("the cat sat on the mat\na dog\n" * 20)
    command = ["prepare", "text", "out", "--workers", "1", "--vocab-size"]
    told = refused([*command, "8000"], "8000", "SentencePiece says", "Vocabulary size too high")
    number = re.search(r"--vocab-size (\d+)", told)[1]
    assert main([*command, str(int(number) + 1)]) == 2
    assert main([*command, number]) == 0
    assert Manifest.load(Path("out")).tokenizer.size == int(number)


# Languages and options


@pytest.mark.parametrize(
    ("objective", "facts"),
    [
        ("tlm:en-xx", ["--objective tlm:en-xx", "no train.en-xx", "train.en-fr"]),
        ("mlm:en,xx", ["--objective mlm:en,xx", "no train.xx", "train.en", "train.fr"]),
        ("tlm:en", ["tlm:en", "a pair such as en-fr"]),
    ],
)
def test_an_unknown_language(
    tiny_data: Path, refused: Refused, objective: str, facts: list[str]
) -> None:
    refused(["train", "--objective", objective, "--data", tiny_data, "--out", "run"], *facts)


def test_an_option_of_a_plugin_that_is_not_selected(
    tiny_data: Path, tmp_path: Path, refused: Refused
) -> None:
    command = [*TRAIN, "--data", tiny_data, "--out", "new"]
    refused([*command, "--pkm.n-keys", "64"], "--pkm.n-keys", "--layer pkm")
    refused([*command, "--clm.context-size", "4"], "--clm.context-size", "--objective clm")
    (tmp_path / "settings.toml").write_text("[pkm]\nn-keys = 64\n")
    refused([*command, "--config", "settings.toml"], "[pkm]", "--layer pkm")


@pytest.mark.parametrize(
    ("flag", "value", "fact"),
    [
        ("--stopping-criterion", "perplexity", "METRIC,N"),
        ("--stopping-criterion", "_valid_mml_ppl,3", "valid_mlm_ppl"),
        ("--validation-metrics", "_valid_mml_ppl", "valid_mlm_ppl"),
        ("--init", "nowhere", "nowhere"),
        ("--data", "nowhere", "xlm prepare"),
        ("--config", "nowhere.toml", "nowhere.toml"),
        ("--train-only", "nothing.like.this", "nothing.like.this"),
        ("--n-heads", "3", "that divides dim"),
        ("--lr", "-1", "lr"),
    ],
)
def test_an_invalid_setting(
    tiny_data: Path, refused: Refused, flag: str, value: str, fact: str
) -> None:
    refused([*TRAIN, "--data", tiny_data, "--out", "new", flag, value], fact)


# Mismatched tokenizer, data and model


def test_evaluating_on_data_of_another_tokenizer(
    tiny_run: Path, tiny_data: Path, other_data: Path, refused: Refused
) -> None:
    refused(
        ["evaluate", tiny_run, "--data", other_data],
        *_fingerprints(tiny_data, other_data),
        "xlm prepare SOURCE OUT --tokenizer-from",
    )


def test_the_suggested_command_works(
    tiny_run: Path, tiny_source: Path, other_data: Path, refused: Refused
) -> None:
    told = refused(["evaluate", tiny_run, "--data", other_data], "hint")
    command = re.search(r"xlm (prepare SOURCE OUT --tokenizer-from \S+)", told)[1].split()
    command[1:3] = [str(tiny_source), "fixed"]
    assert main([*command, "--workers", "1"]) == 0
    assert main(["evaluate", str(tiny_run), "--data", "fixed"]) == 0


def test_resuming_with_data_of_another_tokenizer(
    run: Path, tiny_data: Path, other_data: Path, refused: Refused
) -> None:
    refused(
        ["train", "--resume", run, "--data", other_data],
        *_fingerprints(tiny_data, other_data),
        "xlm prepare SOURCE OUT --tokenizer-from",
    )


def test_resuming_with_other_text(
    run: Path, source: Path, tiny_data: Path, refused: Refused
) -> None:
    """The same tokenizer, but not the text that the run was trained on."""
    with (source / "train.fr.txt").open("a") as text:
        text.write("Et voilà.\n")
    command = ["prepare", str(source), "more", "--tokenizer-from", str(tiny_data)]
    assert main([*command, "--workers", "1"]) == 0
    refused(
        ["train", "--resume", run, "--data", "more"],
        Manifest.load(tiny_data).fingerprint,
        Manifest.load(Path("more")).fingerprint,
        f"xlm train --init {run}",
    )


def test_init_from_another_tokenizer_copies_the_rows_in_common(
    tiny_run: Path, other_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This is allowed: rows are matched by token, and their number is reported."""
    command = [*TRAIN, "--data", str(other_data), "--out", str(tmp_path / "new")]
    assert main([*command, "--init", str(tiny_run)]) == 0
    told = capsys.readouterr().err
    found = re.search(r"encoder\.embeddings\.tokens\.weight: (\d+) of 450 rows found", told)
    assert 270 < int(found[1]) <= 400  # the special ids, the bytes, and the pieces in common


def test_a_data_set_with_the_wrong_tokenizer(
    data: Path, tiny_data: Path, other_data: Path, refused: Refused
) -> None:
    shutil.rmtree(data / "tokenizer")
    shutil.copytree(other_data / "tokenizer", data / "tokenizer")
    command = [*TRAIN, "--data", data, "--out", "new"]
    refused(command, *_fingerprints(tiny_data, other_data))


# Damage


@pytest.mark.parametrize("stream", ["train.en", "valid.en-fr"])
def test_a_truncated_shard(data: Path, tiny_run: Path, refused: Refused, stream: str) -> None:
    shard = data / f"{stream}-00000.tar"
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size // 2)
    facts = (shard, "truncated", f"{size // 2:,} bytes", f"{size:,} bytes", "xlm prepare")
    refused(["data", data, "--verify"], *facts)
    refused(["data", data], *facts)
    refused([*TRAIN, "--data", data, "--out", "new"], *facts)
    if stream.startswith("valid"):
        refused(["evaluate", tiny_run, "--data", data, "--split", "valid"], *facts)


def test_a_missing_shard(data: Path, refused: Refused) -> None:
    shard = data / "train.fr-00000.tar"
    shard.unlink()
    for command in (["data", data, "--verify"], [*TRAIN, "--data", data, "--out", "new"]):
        refused(command, shard, "missing")


def test_a_shard_truncated_after_the_run_was_saved(data: Path, run: Path, refused: Refused) -> None:
    shutil.rmtree(run / "checkpoints" / "step-12")
    shard = data / "train.en-fr-00000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1000])
    command = ["train", "--resume", str(run), "--data", str(data)]
    refused(command, shard, "truncated")
    shard.write_bytes(content)
    assert main(command) == 0


def test_a_shard_truncated_during_training(
    data: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run ends with the shard's name, and can be resumed once the shard is whole."""
    monkeypatch.setattr(retry, "PAUSES", (0.0,))
    shard = data / "valid.en-00000.tar"
    content = shard.read_bytes()
    log = Trainer._log

    def log_and_cut(self: Trainer) -> None:
        log(self)
        shard.write_bytes(content[:-1000])

    monkeypatch.setattr(Trainer, "_log", log_and_cut)
    run = tmp_path / "new"
    command = ["train", "--config", str(tiny_run / "config.toml"), "--data", str(data)]
    command += ["--out", str(run), "--save-every", "3"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"{shard} is truncated" in told
    assert "Traceback" not in told
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-3"]
    monkeypatch.undo()
    shard.write_bytes(content)
    assert main(["train", "--resume", str(run)]) == 0
    assert _evaluations(run) == _evaluations(tiny_run)


def _evaluations(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line | {"time": 0} for line in lines if line["kind"] == "evaluation"]


@pytest.mark.parametrize("n_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_block(
    data: Path, refused: Refused, n_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard has its full length, so only reading finds the damage, in a loader process too.

    Which is slow, for that one makes the real pauses between its attempts.
    """
    monkeypatch.setattr(retry, "PAUSES", (0.0,))
    for language in ("en", "fr"):
        shard = data / f"train.{language}-00000.tar"
        shard.write_bytes(b"\0" * shard.stat().st_size)
    command = ["train", "--objective", "mlm", *TRAIN[5:], "--data", data, "--out", "new"]
    command += ["--workers", str(n_workers)]
    refused(command, "train.", "is damaged", f"xlm data {data} --verify")


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer/component.json"])
def test_a_damaged_data_set(data: Path, refused: Refused, name: str) -> None:
    (data / name).write_text("{")
    refused([*TRAIN, "--data", data, "--out", "new"], data)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "tokenizer/component.json"])
def test_a_damaged_model(run: Path, refused: Refused, name: str) -> None:
    for bundle in [*(run / "checkpoints").iterdir(), *(run / "best").iterdir()]:
        if bundle.is_dir():
            (bundle / name).write_text("{")
    refused(["evaluate", run], run)
    refused(["evaluate", f"{run}@last"], "step-12", name)
    refused(["fill-mask", run, "--language", "en", "<mask>"], run)


# Run folders


def test_out_holds_a_run(run: Path, tiny_data: Path, refused: Refused) -> None:
    refused([*TRAIN, "--data", tiny_data, "--out", run], "already holds a run", f"--resume {run}")


def test_out_holds_something_else(tiny_data: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.tex").write_text("Once")
    refused([*TRAIN, "--data", tiny_data, "--out", "thesis"], "thesis", "--out")


def test_a_run_in_use(run: Path, tiny_data: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.rmtree(run / "checkpoints" / "step-12")
    holder = RunFolder.reopen(run)
    refused(["train", "--resume", run], run, "in use")
    refused([*TRAIN, "--data", tiny_data, "--out", run], "already holds a run")
    holder.close()
    fresh = RunFolder.create(tmp_path / "fresh", "", Plugins.discover(), {})
    for name in ("config.toml", "environment.json", "history.jsonl", "metrics.jsonl"):
        (tmp_path / "fresh" / name).unlink()  # locked, but nothing written yet
    refused([*TRAIN, "--data", tiny_data, "--out", "fresh"], "fresh", "in use")
    fresh.close()


def test_resuming_what_is_not_a_run(tmp_path: Path, refused: Refused) -> None:
    refused(["train", "--resume", "nowhere"], "nowhere", "holds no run")
    refused(["train", "--objective", "mlm", "--resume", "auto"], "--out")


def test_an_existing_data_set_is_never_written_to(
    source: Path, data: Path, refused: Refused
) -> None:
    refused(["prepare", source, data], data, "is already a data set")


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("--layer pkm:9", ("enc.9", "0 to 3")),
        ("--layer pkm:1,1", ("twice", "each place once")),
        ("--layer pkm:1 --layer pkm:2+,1", ("same place, enc.1", "2+")),
        ("--layer pkm:dec.1", ("no decoder", "encoder")),
        ("--layer pkm:+1", ("'+1'", "4+ (after layer 4)")),
        ("--layer pkm --pkm.k-dim 7", ("k-dim = 7", "even")),
        ("--layer pkm --pkm.n-keys 16 --pkm.knn 17", ("knn = 17", "1 to 16")),
    ],
)
def test_a_layer_is_refused_before_any_data_is_read(
    layers: str, told: tuple[str, ...], refused: Refused
) -> None:
    command = f"train --objective mlm --n-layers 4 --data not-there {layers}"
    assert "not-there" not in refused(shlex.split(command), *told)
