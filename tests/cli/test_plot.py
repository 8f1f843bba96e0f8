"""``xlm plot``: the curves of one run or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.runs.curves import Curve, read_curves
from xlm_plugins.runs.plot import MOST_TOGETHER, _draw


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(name: str, *lines: dict[str, object]) -> Path:
    path = Path(name)
    path.mkdir()
    text = "".join(json.dumps({"time": 0.0, **line}) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text)
    return path


def _curves(run: Path) -> dict[str, dict[str, Curve]]:
    return {title: panel.curves for title, panel in read_curves(run).items()}


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
            "valid_en-fr_tlm_ppl": 9.0,
            "valid_en-fr_tlm_alone_ppl": 19.0,
            "valid_tlm_ppl": 9.0,
            "valid_enc.2+_pkm_kl_weighted": 0.5,
        },
    )
    assert _curves(run) == {
        # Smoothed: four fifths of the previous value, one fifth of the new one.
        "training loss": {
            "mlm": [(1, pytest.approx(4.0)), (2, pytest.approx(3.6))],
            "tlm": [(1, pytest.approx(3.0))],
        },
        "mlm: validation perplexity": {"en": [(0, 90.0), (2, 30.0)]},
        "tlm: validation perplexity": {"en-fr": [(2, 9.0)], "mean": [(2, 9.0)]},
        "pkm: kl weighted": {"enc.2+": [(2, 0.5)]},
    }


def test_the_lines_of_one_step_are_one_point_weighted_by_updates() -> None:
    line = {"kind": "train", "step": 1, "objective": "mlm"}
    run = _run("run", line | {"loss": 4.0, "updates": 3}, line | {"loss": 2.0, "updates": 1})
    assert _curves(run)["training loss"] == {"mlm": [(1, 3.5)]}


def _many(name: str, n_languages: int, perplexity: float) -> Path:
    values = {f"valid_l{i:02}_mlm_ppl": perplexity + i for i in range(n_languages)}
    values["valid_mlm_ppl"] = perplexity
    steps = [{"kind": "evaluation", "step": step, **values} for step in (0, 1, 2)]
    return _run(name, *steps)


def test_colours_tell_languages_and_styles_tell_runs_apart() -> None:
    runs = {name: read_curves(_many(name, 4, 10.0 * len(name))) for name in ("a", "bb")}
    figure = _draw(runs, list(runs["a"].values()))
    (axes,) = [a for a in figure.get_axes() if a.get_title(loc="left").startswith("mlm")]
    lines = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
    assert len(set(lines)) == 10  # four languages and their mean, of two runs
    assert len({colour for colour, _ in lines}) == 5
    assert {line.get_linewidth() for line in axes.get_lines() if line.get_color() == "black"} == {
        max(line.get_linewidth() for line in axes.get_lines())
    }
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told[:2] == ["mean  10* | 20", "l00  10* | 20"]
    assert axes.get_legend().get_bbox_to_anchor().x0 >= axes.bbox.x1  # outside


def test_many_languages_are_small_multiples() -> None:
    run = {"run": read_curves(_many("run", MOST_TOGETHER + 7, 5.0))}
    figure = _draw(run, list(run["run"].values()))
    titles = [a.get_title(loc="left") for a in figure.get_axes() if a.get_visible()]
    assert titles[:3] == ["training loss", "mean  5", "l00  5"]
    assert len(titles) == 1 + 1 + MOST_TOGETHER + 7
    few = {"few": read_curves(_many("few", MOST_TOGETHER, 5.0))}
    assert len([a for a in _draw(few, list(few["few"].values())).get_axes() if a.lines]) == 1


def test_small_multiples_show_every_curve_of_a_short_run() -> None:
    lines = [
        {
            "kind": "evaluation",
            "step": step,
            **{f"valid_l{i}_mlm_ppl": 1000.0 + 100 * i - step for i in range(MOST_TOGETHER + 1)},
        }
        for step in (0, 3)
    ]
    panels = read_curves(_run("short", *lines))
    figure = _draw({"short": panels}, list(panels.values()))
    shown = [axes for axes in figure.axes if axes.lines]
    assert len(shown) == MOST_TOGETHER + 1
    for axes in shown:
        low, high = axes.get_ylim()
        assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())


def test_ticks_are_not_rounded_to_their_neighbours() -> None:
    lines = [
        {"kind": "train", "step": step, "objective": "mlm", "loss": 9.06 + step / 100}
        for step in (1, 2, 3)
    ]
    panels = read_curves(_run("flat", *lines))
    axes = _draw({"flat": panels}, list(panels.values())).axes[0]
    labels = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
    assert [float(label) for label in labels] == pytest.approx(axes.get_yticks())


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
    assert _curves(run) == {
        "training loss": {"classify": [(1, 1.0)]},
        "classify: validation accuracy": {"en": [(4, 80.0)], "mean": [(4, 70.0)]},
        "classify: validation macro f1": {"mean": [(4, 0.5)]},
    }
    assert main(["plot", str(toy_run), "--out", "toy.svg"]) == 0
    # matplotlib writes the text into the file as a comment beside each drawn text.
    drawn = Path("toy.svg").read_text()
    assert ": validation accuracy -->" in drawn
    assert "perplexity" not in drawn


def test_translation_scores_are_plotted() -> None:
    line = {"valid_en-fr_mt_ppl": 9.0, "valid_en-fr_mt_bleu": 20.0, "valid_en-fr_mt_copies": 1.0}
    assert _curves(_run("run", {"kind": "evaluation", "step": 4, **line})) == {
        "training loss": {},
        "mt: validation perplexity": {"en-fr": [(4, 9.0)]},
        "mt: validation BLEU": {"en-fr": [(4, 20.0)]},
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
