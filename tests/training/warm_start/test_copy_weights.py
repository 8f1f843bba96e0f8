"""Starting from another model: rows by token and language, everything else by name and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from xlm_plugins.config.inherited import split_init
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import save_tokenizer
from xlm_plugins.core.selection import StackName
from xlm_plugins.model.bundle import write_description
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.transformer import Stack
from xlm_plugins.model.weights import save_tensors
from xlm_plugins.runs.layout import WEIGHTS_NAME
from xlm_plugins.testing import WORDS
from xlm_plugins.testing.words import WordTokenizer
from xlm_plugins.training.warm_start.copy_weights import (
    InitReport,
    initialise,
    initialise_embeddings,
)

N_SPECIAL = 6
EN_FR = {"en": 0, "fr": 1}

Built = tuple[ModelDescription, Any, Model]
Start = Callable[..., tuple[Model, Model, dict[str, torch.Tensor], InitReport]]


def _build(
    vocabulary: Sequence[str],
    languages: Mapping[str, int],
    options: Any,
    stacks: tuple[StackName, ...] = ("encoder",),
) -> Built:
    tokenizer = WordTokenizer(vocabulary)
    shape = ModelOptions(**{"dim": 8, "n_layers": 2, "n_heads": 2, "max_positions": 10, **options})
    description = ModelDescription(shape, tokenizer.vocabulary(), languages, stacks)
    return description, tokenizer, description.build_model({})


@pytest.fixture
def start(xlm_bare_plugins: Plugins, tmp_path: Path) -> Start:
    """Save a model of the words a, b, c, and start another from it.

    Gives the old model, the new one, the new one's weights from before, and the report.
    """

    def start(
        vocabulary: Sequence[str] = "abc",
        languages: Mapping[str, int] = EN_FR,
        theirs: Mapping[str, Any] | None = None,
        their_languages: Mapping[str, int] = EN_FR,
        **options: Any,
    ) -> tuple[Model, Model, dict[str, torch.Tensor], InitReport]:
        torch.manual_seed(1)
        description, tokenizer, old = _build("abc", their_languages, theirs or {})
        save_tokenizer(WORDS, tokenizer, tmp_path / "saved")
        write_description(tmp_path, description, tmp_path / "saved")
        save_tensors(tmp_path / WEIGHTS_NAME, dict(old.named_parameters()))
        description, tokenizer, new = _build(vocabulary, languages, options)
        before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
        report = initialise(new, description, tokenizer, tmp_path, xlm_bare_plugins)
        return old, new, before, report

    return start


def test_an_equal_model_is_copied_whole(start: Start) -> None:
    old, new, _, report = start()
    assert (report.partly, report.new, report.left_out) == ({}, [], [])
    assert sorted(report.copied) == sorted(name for name, _ in old.named_parameters())
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, old.state_dict()[name])


@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_matched_by_token(start: Start, tied: bool) -> None:
    old, new, before, report = start("cxa", theirs={"tied_output": tied}, tied_output=tied)
    for name in ("embeddings.tokens.weight", "output.weight", "output.bias"):
        rows, given = (model.state_dict()[f"encoder.{name}"] for model in (new, old))
        assert torch.equal(rows[:N_SPECIAL], given[:N_SPECIAL])  # specials are tokens as well
        assert torch.equal(rows[N_SPECIAL], given[N_SPECIAL + 2])  # c
        assert torch.equal(rows[N_SPECIAL + 1], before[f"encoder.{name}"][N_SPECIAL + 1])  # x
        assert torch.equal(rows[N_SPECIAL + 2], given[N_SPECIAL])  # a
    tables = {"encoder.embeddings.tokens.weight", "encoder.output.bias"}
    tables |= set() if tied else {"encoder.output.weight"}
    assert report.partly == dict.fromkeys(tables, (8, 9))
    assert report.new == []


def test_rows_are_matched_by_language(start: Start) -> None:
    old, new, before, report = start(languages={"de": 0, "en": 1, "fr": 2})
    name = "encoder.embeddings.languages.weight"
    rows, given = new.state_dict()[name], old.state_dict()[name]
    assert torch.equal(rows[1:], given)
    assert torch.equal(rows[0], before[name][0])
    assert report.partly == {name: (2, 3)}


def test_a_model_of_one_language_has_no_row_to_give(start: Start) -> None:
    _, new, before, report = start(their_languages={"en": 0})
    name = "encoder.embeddings.languages.weight"
    assert report.new == [name]
    assert torch.equal(new.state_dict()[name], before[name])


@pytest.mark.parametrize(("n_positions", "partly"), [(6, {}), (14, {(10, 14)})])
def test_positions_are_truncated_or_extended(start: Start, n_positions: int, partly: Any) -> None:
    old, new, before, report = start(max_positions=n_positions)
    name = "encoder.embeddings.positions.weight"
    n_both = min(n_positions, 10)
    rows = new.state_dict()[name]
    assert torch.equal(rows[:n_both], old.state_dict()[name][:n_both])
    assert torch.equal(rows[n_both:], before[name][n_both:])
    assert set(report.partly.values()) == set(partly)


def test_a_deeper_model_has_new_layers_and_a_shallower_one_leaves_some_out(start: Start) -> None:
    _, new, before, report = start(n_layers=3)
    assert report.new
    assert all(name.startswith("encoder.layers.2.") for name in report.new)
    assert all(torch.equal(new.state_dict()[name], before[name]) for name in report.new)
    _, _, _, report = start(n_layers=1)
    assert report.left_out
    assert all(name.startswith("encoder.layers.1.") for name in report.left_out)


def test_parameters_of_another_shape_stay_as_initialised(start: Start) -> None:
    _, new, before, report = start(ffn_dim=5)
    names = {f"encoder.layers.{i}.feed_forward.{x}" for i in (0, 1)
             for x in ("expand.weight", "expand.bias", "contract.weight")}  # fmt: skip
    assert set(report.new) == names
    assert all(torch.equal(new.state_dict()[name], before[name]) for name in names)


def test_another_width_is_refused_with_a_hint(start: Start) -> None:
    with pytest.raises(BundleError, match=r"width is 8, the new model's is 16\n.*--dim 8"):
        start(dim=16)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, tuple[StackName, ...]], Model]:
    """Save a model with some stacks under a name; each has its own weights."""

    def saved(name: str, stacks: tuple[StackName, ...]) -> Model:
        torch.manual_seed(len(name))
        description, tokenizer, model = _build("abc", EN_FR, {}, stacks)
        save_tokenizer(WORDS, tokenizer, tmp_path / "saved")
        (tmp_path / name).mkdir()
        write_description(tmp_path / name, description, tmp_path / "saved")
        save_tensors(tmp_path / name / WEIGHTS_NAME, dict(model.named_parameters()))
        return model

    return saved


BOTH: tuple[StackName, ...] = ("encoder", "decoder")


def _is_of(stack: Stack, origin: Stack) -> bool:
    """Whether all that two stacks have in common is equal."""
    own, theirs = stack.state_dict(), origin.state_dict()
    return all(torch.equal(own[name], theirs[name]) for name in own.keys() & theirs.keys())


def test_a_pretrained_encoder_starts_encoder_and_decoder(
    saved: Callable[..., Model], xlm_bare_plugins: Plugins, tmp_path: Path
) -> None:
    old = saved("mlm", ("encoder",))
    description, tokenizer, new = _build("abc", EN_FR, {}, BOTH)
    report = initialise(new, description, tokenizer, tmp_path / "mlm", xlm_bare_plugins)
    assert _is_of(new.encoder, old.encoder)
    assert _is_of(new.decoder, old.encoder)
    assert report.left_out == []
    assert report.new
    assert all(".source_attention" in name for name in report.new)


def test_each_stack_may_start_from_its_own_run(
    saved: Callable[..., Model], xlm_bare_plugins: Plugins, tmp_path: Path
) -> None:
    pretrained, translating = saved("mlm", ("encoder",)), saved("translating", BOTH)
    description, tokenizer, new = _build("abc", EN_FR, {}, BOTH)
    for text in (f"encoder={tmp_path / 'mlm'}", f"decoder={tmp_path / 'translating'}"):
        stack, reference = split_init(text)
        initialise(new, description, tokenizer, Path(reference), xlm_bare_plugins, stack)
    assert _is_of(new.encoder, pretrained.encoder)
    assert _is_of(new.decoder, translating.decoder)
    whole = initialise(new, description, tokenizer, tmp_path / "translating", xlm_bare_plugins)
    assert _is_of(new.encoder, translating.encoder)
    assert (whole.new, whole.left_out) == ([], [])


def test_a_stack_that_the_model_lacks_is_refused(
    saved: Callable[..., Model], xlm_bare_plugins: Plugins, tmp_path: Path
) -> None:
    saved("mlm", ("encoder",))
    description, tokenizer, new = _build("abc", EN_FR, {})
    with pytest.raises(OptionError, match=r"no decoder\n.*one of encoder, or the run alone"):
        initialise(new, description, tokenizer, tmp_path / "mlm", xlm_bare_plugins, "decoder")


def test_the_report_reads_well() -> None:
    names = [f"layer.{i}" for i in range(6)]
    report = InitReport("here", ["a", "b"], {"tokens": (7, 9)}, names, ["old"])
    assert report.lines() == [
        "started from here: 2 tensors copied",
        "  tokens: 7 of 9 rows found",
        "  new, as initialised: layer.0, layer.1, layer.2, layer.3 and 2 more",
        "  left out: old",
    ]
    assert InitReport("here", ["a"]).lines() == ["started from here: 1 tensors copied"]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Word vectors, 8 wide, of words c, x and a: c is all 1, x all 2, a all 3."""
    path = tmp_path / "words.vec"
    rows = [" ".join([word, *[str(value)] * 8]) for word, value in (("c", 1), ("x", 2), ("a", 3))]
    path.write_text("\n".join(["3 8", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_word_vectors_go_into_every_stack_scaled_to_its_rows(vectors: Path, tied: bool) -> None:
    torch.manual_seed(1)
    description, tokenizer, model = _build("abc", EN_FR, {"tied_output": tied}, BOTH)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = initialise_embeddings(model, description.options, tokenizer, vectors)
    assert told == f"word vectors of {vectors}: 2 of 9 rows found (22.2 %)"
    a, b, c = range(N_SPECIAL, N_SPECIAL + 3)
    tables = {f"{stack}.{x}.weight" for stack in BOTH for x in ("embeddings.tokens", "output")}
    for name, tensor in model.state_dict().items():
        if name in tables:
            assert torch.allclose(tensor[a], 3 * tensor[c])
            assert len(tensor[c].unique()) == 1
            assert tensor[[a, c]].norm() == pytest.approx(before[name][[a, c]].norm().item())
            assert torch.equal(tensor[:a], before[name][:a])
            assert torch.equal(tensor[b], before[name][b])
        else:
            assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ({"dim": 16}, "train with --dim 8$"),
        ({"dim": 18, "n_heads": 6}, "train with --dim 8 --n-heads 4$"),
    ],
)
def test_word_vectors_of_another_width_are_refused(
    vectors: Path, shape: dict[str, int], remedy: str
) -> None:
    description, tokenizer, model = _build("abc", EN_FR, shape)
    told = rf"8 dimensions, and the model's width is {shape['dim']}\n.*{remedy}"
    with pytest.raises(OptionError, match=told):
        initialise_embeddings(model, description.options, tokenizer, vectors)
