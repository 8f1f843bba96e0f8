"""XLM-R and RoBERTa as fairseq saved them, compared with the same model in transformers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from helpers.roberta_models import SMALL, imported, random_model, xlm_r_pieces
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor

from xlm_plugins.data.prepare.embedded import embedded_sentences

transformers = pytest.importorskip("transformers")


TEXTS = ["In the beginning God created", " l'été à Noël, 1,000.50 fois", "<s> 🐢", ""]


@pytest.fixture(scope="module")
def pieces() -> bytes:
    pieces: bytes = xlm_r_pieces()
    return pieces


def as_fairseq(theirs: dict[str, Tensor], *, old: bool) -> dict[str, Tensor]:
    """transformers' weights under fairseq's names, new or old."""
    names = {
        "roberta.embeddings.word_embeddings.": "encoder.sentence_encoder.embed_tokens.",
        "roberta.embeddings.position_embeddings.": "encoder.sentence_encoder.embed_positions.",
        "roberta.embeddings.LayerNorm.": "encoder.sentence_encoder.layernorm_embedding.",
        "roberta.encoder.layer.": "encoder.sentence_encoder.layers.",
        "attention.self.query.": "self_attn.q_proj.",
        "attention.self.key.": "self_attn.k_proj.",
        "attention.self.value.": "self_attn.v_proj.",
        "attention.output.dense.": "self_attn.out_proj.",
        "attention.output.LayerNorm.": "self_attn_layer_norm.",
        "intermediate.dense.": "fc1.",
        "output.dense.": "fc2.",
        "output.LayerNorm.": "final_layer_norm.",
        "lm_head.": "encoder.lm_head.",
    }
    renamed = {}
    for name, tensor in theirs.items():
        for pattern, replacement in names.items():
            name = name.replace(pattern, replacement)
        renamed[name] = tensor.clone()
    renamed["encoder.lm_head.weight"] = renamed["encoder.sentence_encoder.embed_tokens.weight"]
    if old:
        for name in [name for name in renamed if ".q_proj." in name]:
            parts = [renamed.pop(name.replace(".q_proj.", f".{p}_proj.")) for p in "qkv"]
            renamed[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        renamed = {n.replace("encoder.", "decoder.", 1): t for n, t in renamed.items()}
        renamed = {
            n.replace("layernorm_embedding", "emb_layer_norm"): t for n, t in renamed.items()
        }
    return renamed


def saved(folder: Path, n_ids: int, *, old: bool = False) -> Any:
    """Write a random model's model.pt into a new folder, and return the model."""
    folder.mkdir()
    model = random_model("RobertaForMaskedLM", n_ids, type_vocab_size=1, **SMALL)
    torch.nn.init.zeros_(model.roberta.embeddings.token_type_embeddings.weight)  # fairseq has none
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if "token_type" not in name and "decoder" not in name
    }
    arguments = argparse.Namespace(encoder_attention_heads=4, activation_fn="gelu")
    content = {"args": arguments, "model": as_fairseq(weights, old=old)}
    torch.save(content, folder / "model.pt")
    return model


def xlm_r_folder(folder: Path, pieces: bytes, *, old: bool = False) -> Any:
    """Write XLM-R's files, and return the model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    model = saved(folder, len(processor) + 2, old=old)
    lines = [f"{processor.id_to_piece(i)} 1\n" for i in range(3, len(processor))]
    (folder / "dict.txt").write_text("".join(lines))
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    return model


@pytest.mark.parametrize("old", [False, True])
def test_states_and_scores_are_those_of_transformers(
    tmp_path: Path, pieces: bytes, old: bool
) -> None:
    theirs = xlm_r_folder(tmp_path / "fairseq", pieces, old=old)
    model = imported(tmp_path / "fairseq")
    ids = torch.randint(3, 302, (2, 64))
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True)
        states = model.extract_features(ids, return_all_hiddens=True)
        scores = model.bundle.model.stack("encoder").scores(states[-1].flatten(0, 1))
    assert len(states) == len(expected.hidden_states)
    for found, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, expected.logits.flatten(0, 1), rtol=0, atol=1e-5)


def test_a_dictionary_of_another_model_is_refused(
    pieces: bytes, tmp_path: Path, refused: Callable[..., str]
) -> None:
    xlm_r_folder(tmp_path / "fairseq", pieces)
    path = tmp_path / "fairseq" / "dict.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    refused(["import", "hf", tmp_path / "fairseq", "out"], "dict.txt", "292", "297")


def roberta_folder(folder: Path) -> Any:
    """Write RoBERTa's files with GPT-2's, and return GPT-2's tokenizer."""
    saved(folder, 306)
    cut = ByteLevelBPETokenizer()
    cut.train_from_iterator(embedded_sentences("train", "en")[:200], 300, show_progress=False)
    cut.save_model(str(folder))
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    lines = [f"{number} {number + 1}\n" for number in reversed(range(300))]
    (folder / "dict.txt").write_text("".join([*lines, "madeupword0000 0\n"]))
    return cut


def test_robertas_dictionary_holds_gpt2s_ids(tmp_path: Path) -> None:
    cut = roberta_folder(tmp_path / "fairseq")
    model = imported(tmp_path / "fairseq")
    for text in TEXTS:
        assert model.encode(text).tolist() == [0, *(303 - i for i in cut.encode(text).ids), 2]
        assert model.decode(model.encode(text)) == text
    roles = model.bundle.description.vocabulary.roles
    assert {role: roles[role] for role in ("bos", "pad", "eos", "unk", "mask")} == {
        "bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": 305
    }  # fmt: skip
    tokens = model.bundle.tokenizer.tokens()
    assert tokens[4] == cut.id_to_token(299)
    assert tokens[304:] == ["madeupword0000", "<mask>"]


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("vocab.bpe", None, ("encoder.json and vocab.bpe",)),
        ("dict.txt", "13 5\n300 4\n", ("dict.txt, line 2", "300")),
        ("dict.txt", "13 5\n12 4\n", ("dict.txt", "256 bytes")),
        ("encoder.json", "{", ("encoder.json",)),
        ("encoder.json", '{"a": 0, "b": 0}', ("encoder.json", "'b'")),
        ("vocab.bpe", "t h\nt he re\n", ("vocab.bpe, line 2",)),
    ],
)
def test_damaged_files_of_gpt2_are_refused(
    tmp_path: Path, refused: Callable[..., str], name: str, content: str | None, facts: tuple[str]
) -> None:
    roberta_folder(tmp_path / "fairseq")
    path = tmp_path / "fairseq" / name
    path.unlink() if content is None else path.write_text(content)
    refused(["import", "hf", tmp_path / "fairseq", "out"], *facts)
