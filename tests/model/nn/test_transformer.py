"""The stack: what changes its states and what does not, and computing only requested rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.selection import Position
from xlm_plugins.model.nn.embeddings import SinusoidalPositions
from xlm_plugins.model.nn.transformer import Stack

OPTIONS = ModelOptions(dim=16, n_layers=3, n_heads=4, dropout=0.0, max_positions=20)
PAD = 2
LENGTHS = [4, 9, 2, 9]


class Recorder(Layer):
    """Doubles its input, and records how many rows it saw."""

    def __init__(self) -> None:
        super().__init__(None, OPTIONS.dim)
        self.n_rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.n_rows.append(len(x))
        return 2 * x


def make_stack(n_languages: int = 2, layers: dict[Position, Layer] | None = None, **options):
    torch.manual_seed(1)
    chosen = dataclasses.replace(OPTIONS, **options)
    return Stack(chosen, 30, n_languages, PAD, layers or {})


def make_batch(lengths: list[int], predicted: tuple[int, ...] = (1, 5, 8, 22)) -> Batch:
    generator = torch.Generator().manual_seed(2)
    n = sum(lengths)
    positions = [torch.arange(length) for length in lengths]
    return Batch(
        tokens=torch.randint(5, 30, (n,), generator=generator),
        positions=torch.cat(positions),
        languages=torch.randint(2, (n,), generator=generator),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        predicted=torch.tensor(predicted, dtype=torch.long),
        targets=torch.randint(5, 30, (len(predicted),), generator=generator),
        sample_ids=torch.arange(len(lengths)),
    )


def test_sequences_do_not_see_each_other() -> None:
    stack, batch = make_stack(), make_batch(LENGTHS)
    states = stack(batch)
    for begin, end in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        alone = dataclasses.replace(
            batch,
            tokens=batch.tokens[begin:end],
            positions=batch.positions[begin:end],
            languages=batch.languages[begin:end],
            offsets=torch.tensor([0, end - begin]),
        )
        torch.testing.assert_close(stack(alone), states[begin:end])


def test_causal_states_do_not_see_later_tokens() -> None:
    stack, batch = make_stack(), make_batch([9])
    changed = dataclasses.replace(batch, tokens=batch.tokens.clone())
    changed.tokens[5] = 7
    before, after = stack(batch, causal=True), stack(changed, causal=True)
    torch.testing.assert_close(before[:5], after[:5])
    assert not torch.allclose(before[5:], after[5:])
    assert not torch.allclose(stack(batch)[:5], stack(changed)[:5])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [8, 8, 8]])
def test_requested_rows_have_the_same_states_and_gradients(
    lengths: list[int], causal: bool
) -> None:
    stack, batch = make_stack(), make_batch(lengths)
    cut = stack(batch, causal=causal, at=batch.predicted)
    full = stack(batch, causal=causal)[batch.predicted]
    torch.testing.assert_close(cut, full)
    weights = [w for name, w in stack.named_parameters() if name != "output.bias"]
    torch.testing.assert_close(
        torch.autograd.grad(cut.square().sum(), weights),
        torch.autograd.grad(full.square().sum(), weights),
        atol=1e-5,
        rtol=1e-4,
    )


def test_no_rows_requested() -> None:
    stack, batch = make_stack(), make_batch(LENGTHS, predicted=())
    loss = stack.loss(stack(batch, at=batch.predicted), batch.targets).loss
    loss.backward()
    assert loss == 0
    assert all(w.grad is None or not w.grad.any() for w in stack.parameters())


def test_a_batch_without_sequences() -> None:
    assert make_stack()(make_batch([1], ())).shape == (1, 16)
    empty = torch.empty(0, dtype=torch.long)
    batch = Batch(empty, empty, empty, torch.tensor([0]), empty, empty, empty)
    assert make_stack()(batch).shape == (0, 16)
    assert make_stack()(batch, at=empty).shape == (0, 16)


def test_layers_of_plugins_are_where_they_were_put() -> None:
    inside, after = Recorder(), Recorder()
    layers = {Position("encoder", 1, False): inside, Position("encoder", 2, True): after}
    stack, batch = make_stack(layers=layers), make_batch(LENGTHS)
    embedded, first, second, last = stack.hidden_states(batch)
    assert inside.n_rows == after.n_rows == [24]
    names = [name for name, _ in stack.named_parameters()]
    assert not any(name.startswith("layers.1.feed_forward.") for name in names)
    layer = stack.layers[2]
    layer.after = None
    torch.testing.assert_close(last, 3 * stack(batch))
    layer.after = after
    stack(batch, at=batch.predicted)
    assert after.n_rows[-1] == len(batch.predicted)
    assert embedded.shape == first.shape == second.shape == (24, 16)


def test_hidden_states_end_with_the_states() -> None:
    stack, batch = make_stack(), make_batch(LENGTHS)
    states = stack.hidden_states(batch)
    assert len(states) == 1 + OPTIONS.n_layers
    torch.testing.assert_close(states[-1], stack(batch))
    torch.testing.assert_close(states[0], stack.embeddings(batch))


def test_initialisation() -> None:
    stack = make_stack(dim=64)
    tokens = stack.embeddings.tokens.weight
    assert not tokens[PAD].any()
    assert tokens.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert stack.output.weight is tokens
    for bias in (stack.layers[0].attention.qkv.bias, stack.layers[0].feed_forward.expand.bias):
        assert bias.abs().max() <= 64**-0.5


def test_embeddings_that_are_switched_off() -> None:
    assert make_stack().embeddings.languages is not None
    assert make_stack(n_languages=1).embeddings.languages is None
    assert make_stack(language_embeddings=False).embeddings.languages is None
    batch = make_batch(LENGTHS)
    other = dataclasses.replace(batch, languages=1 - batch.languages)
    without = make_stack(language_embeddings=False)
    assert torch.equal(without(batch), without(other))
    assert not torch.allclose(make_stack()(batch), make_stack()(other))


def test_an_untied_output_weight() -> None:
    stack = make_stack(tied_output=False)
    assert stack.output.weight is not stack.embeddings.tokens.weight
    assert "output.weight" in dict(stack.named_parameters())
    assert "output.weight" not in dict(make_stack().named_parameters())


def test_sinusoidal_positions() -> None:
    table = SinusoidalPositions(40, 6)(torch.arange(40))
    angle = 7 / 10000 ** (2 / 6)
    assert table[7, :2].tolist() == pytest.approx([np.sin(7), np.cos(7)], abs=1e-5)
    assert table[7, 2:4].tolist() == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-5)
    stack = make_stack(position_embeddings="sinusoidal")
    assert stack(make_batch(LENGTHS)).shape == (24, 16)
    assert not any("positions" in name for name in stack.state_dict())


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(DataError, match="21 positions") as caught:
        make_stack()(make_batch([3, 21]))
    assert "20" in caught.value.expected
    assert make_stack()(make_batch([20])).shape == (20, 16)


def test_a_pair_may_be_longer_than_its_positions() -> None:
    batch = make_batch([24])
    batch = dataclasses.replace(batch, positions=batch.positions % 12)
    assert make_stack()(batch).shape == (24, 16)


def test_activation_is_chosen() -> None:
    batch = make_batch(LENGTHS)
    assert not torch.allclose(make_stack()(batch), make_stack(activation="relu")(batch))


def test_autocast_trains_fp32_weights() -> None:
    stack, batch = make_stack(dropout=0.0), make_batch(LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = stack.loss(stack(batch, at=batch.predicted), batch.targets).loss
    loss.backward()
    expected = stack.eval().loss(stack(batch, at=batch.predicted), batch.targets).loss
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    assert all(w.grad.dtype == torch.float32 for w in stack.parameters())


def test_dropout_is_drawn_from_the_seed_in_training_only() -> None:
    stack, batch = make_stack(dropout=0.3), make_batch(LENGTHS)
    torch.manual_seed(5)
    first = stack(batch)
    assert not torch.allclose(stack(batch), first)
    torch.manual_seed(5)
    assert torch.equal(stack(batch), first)
    stack.eval()
    assert torch.equal(stack(batch), stack(batch))
