"""Options from the environment: under flags, over TOML, and never ignored without a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main

TRAIN = ["train", "--steps=1", "--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=128"]


@pytest.fixture
def config(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> object:
    """Train for a step and return config.toml: ``config(flags, variables)``."""
    monkeypatch.chdir(tmp_path)

    def config(flags: list[str], variables: dict[str, str]) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main([*TRAIN, f"--data={tiny_data}", "--out=run", *flags]) == 0
        return Path("run", "config.toml").read_text()

    return config


def value(config: str, name: str) -> str:
    return re.search(rf"^{name} = (.*)$", config, re.MULTILINE)[1]


def test_variables_are_under_flags_and_over_toml(config, tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text("[optimizer]\nlr = 0.1\nbeta1 = 0.5\nbeta2 = 0.6\n[mlm]\nmask-prob = 0.3\n")
    text = config(
        ["--lr=0.01", f"--config={file}"],
        {
            "XLM_TRAIN_OBJECTIVE": "mlm",
            "XLM_TRAIN_LR": "0.02",
            "XLM_TRAIN_BETA1": "0.7",
            "XLM_TRAIN_MLM_MASK_PROB": "0.4",
            "XLM_TRAIN_SEED": "",
        },
    )
    found = [value(text, name) for name in ("lr", "beta1", "beta2", "mask-prob", "seed")]
    assert found == ["0.01", "0.7", "0.6", "0.4", "1"]


def test_switches_and_several_values(config) -> None:
    variables = {"XLM_TRAIN_OBJECTIVE": "mlm tlm:en-fr", "XLM_TRAIN_GROUP_BY_LENGTH": "true"}
    text = config([], variables)
    assert value(text, "group-by-length") == "true"
    assert re.search(r'objective = \[\s*"mlm",\s*"tlm:en-fr",?\s*\]', text)


def test_the_whole_settings_file(config, tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text('[train]\nobjective = ["mlm"]\nseed = 7\n')
    assert value(config([], {"XLM_TRAIN_CONFIG": str(file)}), "seed") == "7"


def test_a_variable_that_is_no_option_is_named(config, capsys: pytest.CaptureFixture) -> None:
    config(["--objective=mlm"], {"XLM_TRAIN_SEEED": "3", "XLM_TRAIN_PKM_N_KEYS": "4"})
    err = capsys.readouterr().err
    assert "note: XLM_TRAIN_SEEED is set, but is no option of this command; " in err
    assert "XLM_TRAIN_SEED" in err
    assert "note: XLM_TRAIN_PKM_N_KEYS is set, but is no option" in err


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["data"], "XLM_DATA_VERIFFY"),
        (["export", "safetensors", "run"], "XLM_EXPORT_SAFETENSORS_RUN"),
        (["finetune"], "XLM_FINETUNE_TASK"),
    ],
)
def test_commands_without_plugins_name_it_too_and_arguments_are_no_options(
    command: list[str], name: str, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(name, "1")
    main([*command, "nowhere"])
    assert f"note: {name} is set, but is no option of this command" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["XLM_TRAIN_LR", "XLM_TRAIN_MLM_MASK_PROB"])
def test_a_bad_value_names_its_variable(name: str, refused, monkeypatch) -> None:
    monkeypatch.setenv(name, "much")
    refused(["train", "--objective=mlm"], f"{name}: 'much' is not a number")


def test_options_of_other_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "train.en.txt").write_text("one two three\n" * 50)
    monkeypatch.setenv("XLM_PREPARE_TOKENIZER", "bytebpe")
    monkeypatch.setenv("XLM_PREPARE_VOCAB_SIZE", "270")
    assert main(["prepare", str(tmp_path), str(tmp_path / "out")]) == 0
    assert '"xlm-bytebpe"' in (tmp_path / "out" / "tokenizer" / "component.json").read_text()


def test_a_value_outside_its_limits_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setenv("XLM_TRAIN_LR", "-1")
    refused(["train", "--objective=mlm"], "optimizer.lr = -1.0 (from XLM_TRAIN_LR)", "more than 0")
    told = refused(["train", "--objective=mlm", "--dropout=2"], "2 options cannot be used")
    assert "model.dropout = 2.0\n" in told
    assert "optimizer.lr = -1.0 (from XLM_TRAIN_LR)\n" in told


def test_a_variable_is_spelled_like_its_flag(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XLM_DATA_JSON", "1")
    assert main(["data", str(tiny_data)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(("{", "["))
    assert "XLM_DATA_JSON" not in err
