"""Random models of RoBERTa's family for the tests that import them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from xlm_plugins.cli.main import main
from xlm_plugins.data.prepare.embedded import embedded_sentences
from xlm_plugins.inference.loaded_model import LoadedModel, load

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def random_model(kind: str, n_ids: int, **shape: Any) -> Any:
    """A Hugging Face model whose weights, biases and norms are all far from their defaults."""
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{kind.partition('For')[0].removesuffix('Model')}Config")(
        vocab_size=n_ids,
        intermediate_size=40,
        max_position_embeddings=66,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **shape,
    )
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def xlm_r_pieces() -> bytes:
    """A SentencePiece model laid out as XLM-R's: `<unk> <s> </s>`, then the pieces."""
    texts = embedded_sentences("train", "en")[:400] + embedded_sentences("train", "fr")[:400]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, vocab_size=300, minloglevel=2
    )
    return written.getvalue()


def imported(folder: Path) -> LoadedModel:
    """The model in a folder, imported with `xlm import hf`."""
    out = folder.with_name(f"{folder.name}-bundle")
    assert main(["import", "hf", str(folder), str(out)]) == 0
    return load(out)
