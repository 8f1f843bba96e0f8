"""The root module holds what was requested, under names that checkpoints can rely on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.selection import Position
from xlm_plugins.model.model import Model

OPTIONS = ModelOptions(dim=8, n_layers=2, n_heads=2)


class Doubling(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def make_model(**parts: Any) -> Model:
    return Model(OPTIONS, 20, 2, {"encoder"}, 2, **parts)


def test_names_of_weights() -> None:
    layer = [
        "attention.qkv.weight",
        "attention.qkv.bias",
        "attention.output.weight",
        "attention.output.bias",
        "attention_norm.weight",
        "attention_norm.bias",
        "feed_forward.expand.weight",
        "feed_forward.expand.bias",
        "feed_forward.contract.weight",
        "feed_forward.contract.bias",
        "feed_forward_norm.weight",
        "feed_forward_norm.bias",
    ]
    embeddings = ["tokens.weight", "positions.weight", "languages.weight"]
    assert [name for name, _ in make_model().named_parameters()] == [
        *(f"encoder.embeddings.{name}" for name in [*embeddings, "norm.weight", "norm.bias"]),
        *(f"encoder.layers.{index}.{name}" for index in (0, 1) for name in layer),
        "encoder.output.bias",
    ]


def test_a_layer_is_found_by_its_position() -> None:
    place, layer = Position("encoder", 1, True), Doubling(None, OPTIONS.dim)
    model = make_model(layers={place: layer})
    assert model.layers_by_position == {place: layer}
    assert model.encoder.layers[1].after is layer


@pytest.mark.parametrize(
    ("position", "problem"),
    [
        (Position("encoder", 2, False), "enc.2: the encoder has 2 layers"),
        (Position("decoder", 0, True), r"dec.0\+: the model has no decoder"),
    ],
)
def test_a_position_that_does_not_exist_is_refused(position: Position, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        make_model(layers={position: Doubling(None, OPTIONS.dim)})


def test_a_decoder_has_attention_to_a_source_beside_what_an_encoder_has() -> None:
    model = Model(OPTIONS, 20, 2, {"encoder", "decoder"}, 2)
    assert model.causal_stack is model.decoder
    own, more = (set(dict(stack.named_parameters())) for stack in (model.encoder, model.decoder))
    attention = ("qkv.weight", "qkv.bias", "output.weight", "output.bias")
    assert own < more
    assert more - own == {
        f"layers.{index}.source_attention{name}"
        for index in (0, 1)
        for name in (*(f".{part}" for part in attention), "_norm.weight", "_norm.bias")
    }


def test_layers_go_to_their_stack() -> None:
    places = (Position("encoder", 1, True), Position("decoder", 1, True))
    layers = {place: Doubling(None, OPTIONS.dim) for place in places}
    model = Model(OPTIONS, 20, 2, {"encoder", "decoder"}, 2, layers)
    assert model.encoder.layers[1].after is layers[places[0]]
    assert model.decoder.layers[1].after is layers[places[1]]


def test_without_a_decoder_there_is_nothing_to_translate_with() -> None:
    with pytest.raises(OptionError, match="the model has no decoder"):
        make_model().stack("decoder")


def test_heads_are_the_models_own() -> None:
    head = nn.Linear(OPTIONS.dim, 3)
    model = make_model(heads={"nli": {"classes": head}})
    assert model.head("nli", "classes") is head
    assert "heads.nli.classes.weight" in model.state_dict()
    with pytest.raises(KeyError):
        model.head("nli", "scores")
    with pytest.raises(KeyError):
        model.head("mlm", "classes")


def test_without_a_decoder_the_encoder_predicts_the_next_token() -> None:
    model = make_model()
    assert model.causal_stack is model.encoder
    assert model.decoder is None


def test_a_forward_pass_computes_the_objectives_loss() -> None:
    class Objective:
        def loss(self, model: Model, batch: Batch) -> LossOutput:
            states = model.encoder(batch, at=batch.predicted)
            return model.encoder.loss(states, batch.targets)

    ids = torch.arange(4)
    batch = Batch(ids, ids, ids * 0, torch.tensor([0, 4]), ids[1:2], ids[1:2], ids[:1])
    result = make_model().eval()(Objective(), batch)
    assert isinstance(result, LossOutput)
    assert result.loss.item() == pytest.approx(3.0, abs=2.5)
    assert result.n_targets == 1
