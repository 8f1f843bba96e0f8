"""``xlm import hf`` of transformers' XLM: equal states and scores; invalid folders are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xlm_plugins.cli.main import main
from xlm_plugins.inference.loaded_model import load

transformers = pytest.importorskip("transformers")

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
SPECIALS = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
FORMS = ["t", "h", "e", "th", "the</w>", "a</w>", "b</w>"]
IDS = torch.tensor([[1, 18, 19, 20, 1], [1, 20, 1, 2, 2]])

Made = Callable[..., Any]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Save a random model and its tokenizer in the folder hf: ``made("XLMModel", n_langs=1)``."""

    def made(kind: str = "XLMWithLMHeadModel", **values: Any) -> Any:
        torch.manual_seed(2)
        config = transformers.XLMConfig(
            **{"vocab_size": len(SPECIALS + FORMS), "emb_dim": 16, "n_layers": 2, "n_heads": 2}
            | {"max_position_embeddings": 12, "n_langs": 2, "lang2id": {"en": 0, "fr": 1}}
            | values
        )
        model = getattr(transformers, kind)(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not (config.sinusoidal_embeddings and "position_embeddings" in name):
                    parameter += 0.2 * torch.randn_like(parameter)
        folder = tmp_path / "hf"
        model.save_pretrained(folder)
        ids = {form: number for number, form in enumerate(SPECIALS + FORMS)}
        (folder / "vocab.json").write_text(json.dumps(ids))
        (folder / "merges.txt").write_text("t h 9\nth e</w> 8\n")
        return model

    return made


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n_langs": 1, "lang2id": {}},
        {"use_lang_emb": False},
        {"sinusoidal_embeddings": True, "gelu_activation": False},
        {"tie_word_embeddings": False},
        {"causal": True},
        {"kind": "XLMModel"},
    ],
    ids=str,
)
def test_states_and_scores_are_those_of_transformers(
    made: Made, tmp_path: Path, values: dict[str, Any]
) -> None:
    theirs = made(**values)
    assert main(["import", "hf", str(tmp_path / "hf"), str(tmp_path / "out")]) == 0
    model, real = load(tmp_path / "out"), IDS != 2
    languages = torch.ones_like(IDS) if len(model.language_ids) > 1 else None
    with torch.no_grad():
        expected = theirs(
            input_ids=IDS, attention_mask=real.long(), langs=languages, output_hidden_states=True
        )
    states = model.extract_features(IDS, languages, return_all_hiddens=True)
    for found, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found[real], wanted[real], **TOLERANCE)
    scores = model.bundle.model.stack("encoder").scores(states[-1][real])
    # A model without an output layer gets a tied one without a bias.
    wanted = expected["logits"][real] if "logits" in expected else (
        states[-1][real] @ theirs.embeddings.weight.T
    )  # fmt: skip
    torch.testing.assert_close(scores, wanted.detach(), **TOLERANCE)
    assert model.encode("the a").tolist() == [1, 18, 19, 1]


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"lang2id": {"en": 0, "fr": 2}}, ["has 2 languages", "0 to 1"]),
        ({"lang2id": ["en", "fr"]}, ["is not a XLMWithLMHeadModel as transformers saves it"]),
        ({"n_layers": 3}, ["lacks the weight 'attentions.2"]),
        ({"n_layers": 1}, ["has a weight 'attentions.1", "no counterpart"]),
        ({"architectures": 7}, ["holds a 7", "XLMWithLMHeadModel"]),
        ({"mask_index": 6}, ["id of mask is 5", "6 in the model's configuration"]),
    ],
    ids=str,
)
def test_invalid_configurations(
    made: Made,
    tmp_path: Path,
    refused: Callable[..., str],
    values: dict[str, Any],
    facts: list[str],
) -> None:
    made()
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    refused(["import", "hf", "hf", "out"], *facts)
