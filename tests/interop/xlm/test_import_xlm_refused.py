"""``xlm import xlm`` refuses bad input with a clear message and status 2, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Checkpoint = dict[str, Any]
Make = Callable[..., Checkpoint]
Saved = Callable[..., Path]
Refused = Callable[..., str]


def test_not_a_checkpoint(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "text.pth"
    path.write_text("hello\n")
    refused(["import", "xlm", path, "out"], path, "cannot be read as a torch checkpoint")
    refused(["import", "xlm", "none.pth", "out"], "there is no file none.pth")
    refused(["import", "xlm", tmp_path, "out"], "is a folder", "xlm import hf")


def test_a_checkpoint_of_something_else(refused: Refused, saved: Saved) -> None:
    path = saved({"args": None, "model": {}})
    refused(["import", "xlm", path, "out"], "not a checkpoint", "args, model", "xlm import hf")
    refused(["import", "xlm", saved([1, 2]), "out"], "not a checkpoint of XLM", "a list")


def test_a_truncated_file(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    path = saved(xlm_checkpoint())
    path.write_bytes(path.read_bytes()[:-1000])
    refused(["import", "xlm", path, "out"], path, "truncated", "checksum")


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


def test_a_malicious_file_is_not_run(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    path = saved({**xlm_checkpoint(), "best_metrics": Runs()})
    refused(["import", "xlm", path, "out"], f"names {os.name}.mkdir", "nothing was run")
    assert not Path("it-ran").exists()


def test_codes_without_a_vocabulary(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    path = saved(xlm_checkpoint())
    refused(["import", "xlm", path, "out", "--codes", "codes"], "without --vocab", "--vocab VOCAB")


def test_a_vocabulary_of_another_size(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    content, vocabulary = xlm_checkpoint(n_words=20), tmp_path / "vocab"
    vocabulary.write_text("".join(f"w{n} {100 - n}\n" for n in range(9)))
    arguments = ["import", "xlm", saved(content), "out", "--vocab", vocabulary]
    refused(arguments, f"{vocabulary} has 9 words (23 ids", "has 6 words (20 ids")
    content["dico_id2word"] = dict(list(content["dico_id2word"].items())[:18])
    refused(["import", "xlm", saved(content), "out"], "has 18 words", "embeddings of 20")


def test_a_vocabulary_with_other_words(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    content, vocabulary = xlm_checkpoint(n_words=17), tmp_path / "vocab"
    vocabulary.write_text("w14 9\nw15@@ 8\nother 7\n")
    arguments = ["import", "xlm", saved(content), "out", "--vocab", vocabulary]
    refused(arguments, "'other' as id 16", "'w16'")


@pytest.mark.parametrize("text", ["", "a sentence\nand another one\n"])
def test_a_file_that_is_not_a_vocabulary(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, tmp_path: Path, text: str
) -> None:
    vocabulary = tmp_path / "vocab"
    vocabulary.write_text(text)
    arguments = ["import", "xlm", saved(xlm_checkpoint()), "out", "--vocab", vocabulary]
    refused(arguments, f"{vocabulary} is not a vocabulary of XLM", "the 4711")


def test_missing_files(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    content, vocabulary = xlm_checkpoint(n_words=15), tmp_path / "vocab"
    arguments = ["import", "xlm", saved(content), "out", "--vocab", vocabulary]
    refused(arguments, f"{vocabulary} cannot be read")
    vocabulary.write_text("w14 9\n")
    content["dico_id2word"][14] = "w14"
    arguments[2] = saved(content)
    refused([*arguments, "--codes", "no-codes"], "no-codes cannot be read")


def test_no_vocabulary_at_all(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    content = xlm_checkpoint()
    del content["dico_id2word"]
    refused(["import", "xlm", saved(content), "out"], "holds no vocabulary", "--vocab VOCAB")


def test_other_special_words(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    content = xlm_checkpoint()
    content["dico_id2word"][1] = "<end>"
    refused(["import", "xlm", saved(content), "out"], "begins with <s> <end>", "<s> </s> <pad>")


def test_an_architecture_that_is_not_supported(
    refused: Refused, saved: Saved, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint()
    content["model"]["convolution.0.weight"] = torch.ones(2)
    supported = "an encoder, or an encoder and a decoder"
    refused(["import", "xlm", saved(content), "out"], "'convolution.0.weight'", supported)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mem_grouped_conv", True),
        ("mem_v_dim", 32),
        ("mem_query_residual", True),
        ("mem_implementation", "pq_other"),
        ("mem_query_layer_sizes", ""),
    ],
)
def test_memories_that_are_not_supported(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, name: str, value: Any
) -> None:
    content = xlm_checkpoint(use_memory=True, mem_enc_positions="1", **{name: value})
    refused(["import", "xlm", saved(content), "out"], name)


def test_weights_that_do_not_match_the_options(
    refused: Refused, saved: Saved, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint()
    content["params"]["n_layers"] = 3
    refused(["import", "xlm", saved(content), "out"], "lacks the weight 'attentions.2")
    content["params"]["n_layers"] = 1
    refused(
        ["import", "xlm", saved(content), "out"],
        "has a weight 'attentions.1",
        "no counterpart",
    )
    content["params"] |= {"n_layers": 2, "emb_dim": 32}
    refused(["import", "xlm", saved(content), "out"], "is (60, 16), the model's is (60, 32)")
    del content["model"]["attentions.1.k_lin.bias"]
    refused(["import", "xlm", saved(content), "out"], "'attentions.1.k_lin.bias'")


def test_an_output_layer_that_should_be_tied(
    refused: Refused, saved: Saved, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint(share_inout_emb=False)
    content["params"]["share_inout_emb"] = True
    refused(["import", "xlm", saved(content), "out"], "share_inout_emb")


def test_positions_that_should_be_sinusoids(
    refused: Refused, saved: Saved, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint()
    content["params"]["sinusoidal_embeddings"] = True
    refused(["import", "xlm", saved(content), "out"], "should be sinusoids")


def test_options_out_of_range(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    content = xlm_checkpoint()
    content["params"]["n_heads"] = 3
    refused(["import", "xlm", saved(content), "out"], "n-heads = 3")
    content["params"]["n_heads"] = "many"
    refused(["import", "xlm", saved(content), "out"], "n-heads = 'many'")


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("params", [1, 2], "XLM does not write"),
        ("dico_id2word", {"<s>": 0, 1: "</s>"}, "XLM does not write"),
        ("dico_id2word", {1: "<s>", 2: "</s>"}, "does not number its words from 0"),
        ("model", [torch.ones(1)], "'model' is missing, or not a table of weights"),
    ],
)
def test_content_of_other_types(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, name: str, value: Any, fact: str
) -> None:
    path = saved({**xlm_checkpoint(), name: value})
    refused(["import", "xlm", path, "out"], fact)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mlm_steps", [7]), ("asm_cutoffs", "a,b"), ("lang2id", 7), ("mem_enc_positions", ["in"])],
)
def test_params_that_cannot_be_read(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, name: str, value: Any
) -> None:
    content = xlm_checkpoint()
    content["params"] |= {"asm": True, "asm_cutoffs": [20], "use_memory": True, name: value}
    refused(["import", "xlm", saved(content), "out"], "XLM does not write")


def test_no_languages(refused: Refused, saved: Saved, xlm_checkpoint: Make) -> None:
    content = xlm_checkpoint()
    del content["params"]["lang2id"]
    refused(["import", "xlm", saved(content), "out"], "which languages", "lang2id")


def test_an_existing_out(
    refused: Refused, saved: Saved, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine\n")
    refused(["import", "xlm", saved(xlm_checkpoint()), out], f"{out} already exists")
    refused(["import", "xlm", saved(xlm_checkpoint()), out / "notes.txt"], "already exists")


def test_the_group_knows_its_commands(refused: Refused) -> None:
    refused(["import", "xml", "a", "b"], "there is no command 'xml'", "did you mean xlm?")
