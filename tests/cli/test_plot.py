"""``xlm plot``: the curves of one run or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.runs.plot import _panels


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(name: str, *lines: dict[str, object]) -> Path:
    path = Path(name)
    path.mkdir()
    text = "".join(json.dumps({"time": 0.0, **line}) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text)
    return path


def test_one_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(tiny_run)]) == 0
    assert capsys.readouterr().out == "curves.png\n"
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_are_distinguished(tiny_run: Path) -> None:
    other = _run("other", {"kind": "train", "step": 1, "objective": "mlm", "loss": 2.0})
    assert main(["plot", str(tiny_run), str(other), "--out", "pictures/both.svg"]) == 0
    assert b"<svg" in Path("pictures/both.svg").read_bytes()


def test_a_run_without_metrics_and_a_non_finite_loss() -> None:
    assert main(["plot", str(_run("new")), "--out", "new.png"]) == 0
    lines = [{"kind": "train", "step": s, "objective": "mlm", "loss": "nan"} for s in (1, 2)]
    lines += [{"kind": "evaluation", "step": 2, "valid_mlm_ppl": "inf"}]
    assert main(["plot", str(_run("broken", *lines)), "--out", "broken.png"]) == 0


def test_curves_match_the_metrics() -> None:
    run = _run(
        "run",
        {"kind": "evaluation", "step": 0, "valid_en_mlm_ppl": 90.0, "valid_en_mlm_acc": 1.0},
        {"kind": "train", "step": 1, "objective": "mlm", "loss": 4.0},
        {"kind": "train", "step": 1, "objective": "tlm", "loss": 3.0},
        {"kind": "train", "step": 2, "objective": "mlm", "loss": 2.0},
        {
            "kind": "evaluation",
            "step": 2,
            "valid_en_mlm_ppl": 30.0,
            "valid_x_tlm_alone_ppl": 9.0,
            "valid_enc.2+_pkm_kl_weighted": 0.5,
        },
    )
    assert _panels(run) == {
        # Smoothed: four fifths of the previous value, one fifth of the new one.
        "training loss": {
            "mlm": [(1, pytest.approx(4.0)), (2, pytest.approx(3.6))],
            "tlm": [(1, pytest.approx(3.0))],
        },
        "validation perplexity": {"en_mlm": [(0, 90.0), (2, 30.0)]},
        "pkm kl weighted": {"enc.2+": [(2, 0.5)]},
    }


def test_a_task_has_panels_of_its_metrics_only(toy_run: Path) -> None:
    measured = {
        "valid_en_classify_acc": 80.0,
        "valid_classify_acc": 70.0,
        "valid_classify_macro_f1": 0.5,
    }
    run = _run(
        "run",
        {"kind": "train", "step": 1, "objective": "classify", "loss": 1.0},
        {"kind": "evaluation", "step": 4, **measured},
    )
    assert _panels(run) == {
        "training loss": {"classify": [(1, 1.0)]},
        "validation accuracy": {"en_classify": [(4, 80.0)], "classify": [(4, 70.0)]},
        "validation macro f1": {"classify": [(4, 0.5)]},
    }
    assert main(["plot", str(toy_run), "--out", "toy.svg"]) == 0
    # matplotlib writes the text into the file as a comment beside each drawn text.
    drawn = Path("toy.svg").read_text()
    assert "<!-- validation accuracy -->" in drawn
    assert "perplexity" not in drawn


def test_translation_scores_are_plotted() -> None:
    line = {"valid_en-fr_mt_ppl": 9.0, "valid_en-fr_mt_bleu": 20.0, "valid_en-fr_mt_copies": 1.0}
    assert _panels(_run("run", {"kind": "evaluation", "step": 4, **line})) == {
        "validation perplexity": {"en-fr_mt": [(4, 9.0)]},
        "validation BLEU": {"en-fr_mt": [(4, 20.0)]},
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere has no metrics.jsonl"),
        ([], "RUN"),
        (["run", "--out", "curves.xyz"], ".png, .pdf, .svg"),
    ],
)
def test_what_cannot_be_plotted(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    _run("run", {"kind": "train", "step": 1, "objective": "mlm", "loss": 2.0})
    assert main(["plot", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert {path.name for path in Path().iterdir()} == {"run"}
