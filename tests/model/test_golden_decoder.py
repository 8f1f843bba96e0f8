"""An imported encoder and decoder compute and generate what the reference implementation did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from xlm_plugins.config.model import GenerationOptions
from xlm_plugins.contracts.batch import Batch, Vocabulary
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.interop.xlm.importing import import_xlm
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.generation.search import beam_search, generate, read_source
from xlm_plugins.model.model import Model
from xlm_plugins.model.nn.transformer import Source

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
NOTHING = torch.empty(0, dtype=torch.long)

Golden = dict[str, Any]


@pytest.fixture(scope="module")
def golden(golden_values: Callable[[str], Golden]) -> Golden:
    return golden_values("encdec")


@pytest.fixture(scope="module")
def model(
    golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Model:
    out, plugins = tmp_path_factory.mktemp("imported") / "encdec", Plugins.discover()
    import_xlm(golden_checkpoint("encdec"), out, plugins)
    return Bundle.load(out, plugins).model


def packed(tokens: Tensor, lengths: Tensor, languages: Tensor, real: Tensor) -> Batch:
    """A (length, batch) matrix without its padding."""
    return Batch(
        tokens=tokens.T[real],
        positions=torch.arange(len(tokens)).expand(real.shape)[real],
        languages=languages.T[real],
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        predicted=NOTHING,
        targets=NOTHING,
        sample_ids=torch.arange(len(lengths)),
    )


def cells(lengths: Tensor, longest: int) -> Tensor:
    """Which cells of a (batch, length) matrix hold a token."""
    return torch.arange(longest) < lengths[:, None]


@pytest.fixture(scope="module")
def source(golden: Golden) -> Batch:
    real = cells(golden["len1"], len(golden["x1"]))
    return packed(golden["x1"], golden["len1"], golden["langs1"], real)


@pytest.fixture(scope="module")
def order(golden: Golden) -> Tensor:
    """The reference orders predictions by position, we by sequence."""
    number = torch.full(golden["pred_mask"].T.shape, -1)
    for index, (position, sequence) in enumerate(golden["pred_mask"].nonzero().tolist()):
        number[sequence, position] = index
    return number[number >= 0]


@pytest.fixture(scope="module")
def batch(golden: Golden, source: Batch, order: Tensor) -> Batch:
    real = cells(golden["len2"], len(golden["x2"]))
    target = packed(golden["x2"], golden["len2"], golden["langs2"], real)
    predicted = golden["pred_mask"].T[real].nonzero()[:, 0]
    targets = golden["y"][order]
    return Batch(**{**vars(target), "predicted": predicted, "targets": targets, "source": source})


@torch.inference_mode()
def test_hidden_states_are_the_references(golden: Golden, model: Model, batch: Batch) -> None:
    states = model.encoder(batch.source)
    real = cells(golden["len1"], len(golden["x1"]))
    torch.testing.assert_close(states, golden["enc_hidden"].transpose(0, 1)[real], **TOLERANCE)
    read = model.decoder(batch, causal=True, source=Source(states, batch.source.offsets))
    real = cells(golden["len2"], len(golden["x2"]))
    torch.testing.assert_close(read, golden["dec_hidden"].transpose(0, 1)[real], **TOLERANCE)


@torch.inference_mode()
def test_scores_and_loss_are_the_references(
    golden: Golden, model: Model, batch: Batch, order: Tensor
) -> None:
    source = Source(model.encoder(batch.source), batch.source.offsets)
    states = model.decoder(batch, causal=True, source=source, at=batch.predicted)
    torch.testing.assert_close(model.decoder.scores(states), golden["scores"][order], **TOLERANCE)
    loss, n_targets, _ = model.predict_from_source(batch)
    assert n_targets == len(golden["y"])
    torch.testing.assert_close(loss / n_targets, golden["loss"], **TOLERANCE)


LIMITS = torch.full((6,), 30)
ANY_TOKEN = Vocabulary(200, {"eos": 1}, (1,))  # the reference may generate specials


def expected_rows(golden: Golden) -> list[list[int]]:
    """Without the framing EOS."""
    columns = zip(golden["generated"].T.tolist(), golden["lengths"].tolist(), strict=True)
    return [column[1 : length - 1] for column, length in columns]


def test_greedy_generation_is_the_references(golden: Golden, model: Model, source: Batch) -> None:
    assert golden["greedy"]["max_len"] == 30
    found = generate(model, source, 1, ANY_TOKEN, GenerationOptions(), LIMITS)
    assert found.rows() == expected_rows(golden["greedy"])


@pytest.mark.parametrize(
    "setting", [(1, 1.0, False), (4, 1.0, False), (4, 0.6, False), (4, 1.3, True)]
)
def test_beam_search_is_the_references(
    setting: tuple[int, float, bool], golden: Golden, model: Model, source: Batch
) -> None:
    beam, length_penalty, early_stopping = setting
    options = GenerationOptions(
        beam=beam, length_penalty=length_penalty, early_stopping=early_stopping
    )
    decoding, begin = read_source(model, source, 1, width=beam), torch.ones_like(LIMITS)
    found = beam_search(decoding, begin, ANY_TOKEN, options, LIMITS)
    assert found.rows() == expected_rows(golden["beam"][setting])
