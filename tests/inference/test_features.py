"""Ids in, hidden states out: `encode`, `decode` and `extract_features` of a loaded model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from xlm_plugins.contracts.batch import Batch
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import DataError, OptionError
from xlm_plugins.inference.loaded_model import LoadedModel
from xlm_plugins.model.bundle import Bundle

Bundles = Callable[..., Bundle]


@pytest.fixture
def model(random_bundle: Bundles) -> LoadedModel:
    return LoadedModel(random_bundle("mlm"))


def stack_states(
    model: LoadedModel, ids: list[int], language: int, positions: list[int]
) -> list[torch.Tensor]:
    """The stack's own states of one row.  Shapes: (length, dim)"""
    none = torch.empty(0, dtype=torch.long)
    batch = Batch(
        tokens=torch.tensor(ids),
        positions=torch.tensor(positions),
        languages=torch.full((len(ids),), language),
        offsets=torch.tensor([0, len(ids)]),
        predicted=none,
        targets=none,
        sample_ids=torch.tensor([0]),
    )
    with torch.no_grad():
        return model.bundle.model.stack("encoder").hidden_states(batch)


def test_encoding_frames_a_text_and_decoding_restores_it(model: LoadedModel) -> None:
    ids = model.encode("a c b")
    roles = model.bundle.description.vocabulary.roles
    assert ids[0] == ids[-1] == roles["eos"]
    assert ids.dtype == torch.long
    assert model.decode(ids) == "a c b"
    assert model.encode("").tolist() == [roles["eos"]] * 2


def test_text_is_encoded_by_the_rules_of_the_only_language(
    random_bundle: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = random_bundle("mlm", languages=("fr",))
    asked: list[str] = []

    def in_language(language: str) -> Tokenizer:
        asked.append(language)
        return bundle.tokenizer

    monkeypatch.setattr(bundle.tokenizer, "in_language", in_language)
    model = LoadedModel(bundle)
    assert model.decode(model.encode("a c b")) == "a c b"
    assert asked == ["fr", "fr"]


def test_one_row_gives_a_batch_of_one_for_every_layer(model: LoadedModel) -> None:
    ids = model.encode("a c b d")
    states = model.extract_features(ids, torch.ones_like(ids), return_all_hiddens=True)
    assert len(states) == 1 + 3
    expected = stack_states(model, ids.tolist(), 1, list(range(6)))
    for found, wanted in zip(states, expected, strict=True):
        torch.testing.assert_close(found, wanted[None])
    last = model.extract_features(ids, torch.ones_like(ids))
    torch.testing.assert_close(last, states[-1], rtol=0, atol=0)
    assert not last.requires_grad


def test_padding_changes_nothing(model: LoadedModel) -> None:
    pad = model.bundle.description.vocabulary.roles["pad"]
    rows = [model.encode(text) for text in ("a b c d e", "f", "")]
    grid = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    languages = torch.tensor([0, 1, 0])[:, None].expand(grid.shape)
    together = model.extract_features(grid, languages)
    assert together.shape == (*grid.shape, 16)
    for row, ids in enumerate(rows):
        alone = model.extract_features(ids, languages[row, : len(ids)])
        torch.testing.assert_close(together[row, : len(ids)], alone[0])
        assert not together[row, len(ids) :].any()


def test_positions_and_languages_are_those_of_each_token(model: LoadedModel) -> None:
    ids = torch.cat([model.encode("a b"), model.encode("a b")])
    positions = torch.tensor([0, 1, 2, 3] * 2)
    languages = torch.tensor([0] * 4 + [1] * 4)
    first, *_ = model.extract_features(ids, languages, positions, return_all_hiddens=True)
    for begin, language in ((0, 0), (4, 1)):
        wanted = stack_states(model, ids[:4].tolist(), language, [0, 1, 2, 3])[0]
        torch.testing.assert_close(first[0, begin : begin + 4], wanted)


def test_a_causal_model_attends_causally(random_bundle: Bundles) -> None:
    model = LoadedModel(random_bundle("clm", languages=("en",)))
    ids = model.encode("a b c d")
    whole, part = model.extract_features(ids), model.extract_features(ids[:3])
    torch.testing.assert_close(whole[:, :3], part)


def test_languages_are_required_if_there_are_several(model: LoadedModel) -> None:
    with pytest.raises(OptionError, match="en = 0, fr = 1"):
        model.extract_features(model.encode("a"))
    assert model.language_ids == {"en": 0, "fr": 1}


@pytest.mark.parametrize(
    ("what", "given", "told"),
    [
        ("ids", torch.tensor([[[1]]]), "batch, length"),
        ("ids", torch.tensor([1, 99]), "99"),
        ("ids", torch.tensor([-1]), "-1"),
        ("ids", torch.tensor([1.5]), "float32"),
        ("languages", torch.tensor([0, 0]), "(1, 3)"),
        ("languages", torch.tensor([0, 2, 0]), "0 to 1"),
        ("positions", torch.tensor([0, 1, 32]), "0 to 31"),
    ],
    ids=str,
)
def test_invalid_input_is_refused(
    model: LoadedModel, what: str, given: torch.Tensor, told: str
) -> None:
    arguments = {"ids": model.encode("a"), "languages": torch.zeros(3).long(), what: given}
    with pytest.raises(DataError) as error:
        model.extract_features(**arguments)
    assert told in str(error.value)


def test_a_row_longer_than_the_positions_is_refused(model: LoadedModel) -> None:
    ids = torch.full((33,), 7)
    with pytest.raises(DataError, match="33"):
        model.extract_features(ids, torch.zeros_like(ids))
    with pytest.raises(DataError, match="length"):
        model.decode(ids[None])
