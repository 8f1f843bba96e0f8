"""The head: its loss computed by hand on padded input, and what is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.config.training import FinetuneOptimizerOptions, RunOptions
from xlm_plugins.contracts.batch import Batch, pack
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.model.classifier import HEAD, Classifier, ClassifierDescription
from xlm_plugins.model.model import Model
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.torch_engine import TorchEngine

OPTIONS = ModelOptions(dim=16, n_layers=3, n_heads=2, dropout=0.0, attention_dropout=0.0)
EOS, PAD = 1, 2
LENGTHS = (5, 2, 9, 3)
CLASSES = ("no", "perhaps", "yes")


def classifier_of(
    classes: tuple[str, ...] = CLASSES, pool: str = "first", **options: object
) -> Classifier:
    return Classifier(ClassifierDescription("task", classes, 1, pool, 32), **options)


def model_of(classifier: Classifier) -> Model:
    torch.manual_seed(5)
    heads = {classifier.name: classifier.modules(OPTIONS)}
    model = Model(OPTIONS, 30, 2, ("encoder",), PAD, {}, heads).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def batch_of(lengths: tuple[int, ...] = LENGTHS, *, numbers: bool = False) -> Batch:
    """Rows framed by EOS; row r has the class r % 3, or the value r / 2."""
    rng = np.random.default_rng(7)
    rows = [np.array([EOS, *rng.integers(6, 30, n - 2), EOS]) for n in lengths]
    tokens, ids = Ragged.of(rows), np.arange(len(rows))
    targets = ids / 2 if numbers else ids % 3
    languages = Ragged(np.repeat(ids % 2, tokens.lengths), tokens.offsets)
    return pack(tokens, tokens.positions(), languages, tokens.offsets[:-1], targets, ids)


def padded_states(model: Model, batch: Batch) -> list[Tensor]:
    """The last states of each row, computed alone: nothing is packed and nothing can leak."""
    states = []
    for begin, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        alone = dataclasses.replace(
            batch,
            tokens=batch.tokens[begin:end],
            positions=batch.positions[begin:end],
            languages=batch.languages[begin:end],
            offsets=torch.tensor([0, end - begin]),
        )
        states.append(model.encoder(alone))
    return states


def scores_by_hand(model: Model, batch: Batch, pool: str) -> Tensor:
    """Without dropout: pooling over padded states with a mask, then one matrix product."""
    states = torch.nn.utils.rnn.pad_sequence(padded_states(model, batch), batch_first=True)
    lengths = batch.offsets.diff()
    if pool == "first":
        pooled = states[:, 0]
    else:
        place = torch.arange(states.shape[1])
        own = (place >= 1) & (place < lengths[:, None] - 1)
        own[lengths == 2, 1] = True  # an empty text has but its closing EOS
        pooled = (states * own[..., None]).sum(1) / own.sum(1, keepdim=True)
    linear = model.head("task", HEAD).linear
    return pooled @ linear.weight.T + linear.bias


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_the_loss_is_cross_entropy(pool: str) -> None:
    classifier = classifier_of(pool=pool)
    model, batch = model_of(classifier), batch_of()
    scores = scores_by_hand(model, batch, pool)
    expected = functional.cross_entropy(scores, batch.targets, reduction="sum")
    found = classifier.loss(model, batch)
    torch.testing.assert_close(classifier.scores(model, batch), scores, rtol=1e-5, atol=1e-5)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.n_targets.item() == 4
    assert found.n_correct.item() == (scores.argmax(1) == batch.targets).sum().item()


def test_class_weights_weight_the_loss() -> None:
    weights = [0.5, 2.0, 0.25]
    classifier = classifier_of(class_weights=weights)
    model, batch = model_of(classifier), batch_of()
    logs = scores_by_hand(model, batch, "first").log_softmax(1)
    expected = -sum(weights[t] * logs[r, t] for r, t in enumerate(batch.targets.tolist()))
    assert classifier.loss(model, batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_regression_has_the_squared_error() -> None:
    classifier = classifier_of(classes=())
    model, batch = model_of(classifier), batch_of(numbers=True)
    values = scores_by_hand(model, batch, "first")[:, 0]
    expected = ((values - torch.tensor([0.0, 0.5, 1.0, 1.5])) ** 2).sum()
    found = classifier.loss(model, batch)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (found.n_targets.item(), found.n_correct.item()) == (4, 0)


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_other_rows_do_not_matter(pool: str) -> None:
    classifier = classifier_of(pool=pool)
    model, batch = model_of(classifier), batch_of()
    together = classifier.scores(model, batch)
    tokens = Ragged(batch.tokens.numpy(), batch.offsets.numpy())
    for order in ([2, 0, 3, 1], [3], [1, 2]):
        rows = tokens.take(np.array(order))
        languages = Ragged(np.repeat(np.array(order) % 2, rows.lengths), rows.offsets)
        other = pack(
            rows, rows.positions(), languages, rows.offsets[:-1], np.array(order) % 3,
            np.array(order),
        )  # fmt: skip
        found = classifier.scores(model, other)
        torch.testing.assert_close(found, together[order], rtol=1e-5, atol=1e-5)


def test_the_description_comes_back_from_json() -> None:
    description = classifier_of().description
    assert ClassifierDescription.from_json(description.to_json()) == description
    assert description.to_json()["classes"] == list(CLASSES)  # as JSON has it: resumes compare it


def trained(
    classifier: Classifier, optimizer: FinetuneOptimizerOptions, *only: str
) -> dict[str, float]:
    """How far each parameter moves in Adam's first update: by its learning rate."""
    model = model_of(classifier)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine = TorchEngine(model, optimizer, RunOptions(train_only=only), World())
    engine.forward_backward(classifier, batch_of(), 1.0)
    engine.step(optimizer.lr)
    return moved(before, model)


def moved(before: Mapping[str, Tensor], model: Model) -> dict[str, float]:
    return {
        name: (parameter - before[name]).abs().max().item()
        for name, parameter in model.named_parameters()
    }


def test_the_head_has_its_own_learning_rate() -> None:
    distances = trained(classifier_of(lr=1e-2), FinetuneOptimizerOptions(lr=1e-4, clip=0.0))
    for name, distance in distances.items():
        if name.startswith("heads."):
            assert distance == pytest.approx(1e-2, rel=0.01), name
        elif not name.startswith("encoder.output"):  # which nothing here uses
            assert 0 < distance < 1.01e-4, name


def test_without_one_it_has_the_learning_rate_of_the_run() -> None:
    distances = trained(classifier_of(), FinetuneOptimizerOptions(lr=1e-3, clip=0.0))
    assert distances["heads.task.head.linear.bias"] == pytest.approx(1e-3, rel=0.01)


def test_a_frozen_head_does_not_change() -> None:
    optimizer = FinetuneOptimizerOptions(lr=1e-3)
    distances = trained(classifier_of(lr=1e-2), optimizer, "encoder.layers.1.*")
    assert {n for n, d in distances.items() if d} <= {n for n in distances if ".layers.1." in n}
    assert distances["encoder.layers.1.attention.output.weight"] > 0
