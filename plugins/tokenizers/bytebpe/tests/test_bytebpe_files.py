"""RoBERTa's tokenizer from the files of other libraries, valid and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xlm_bytebpe import ByteBPEOptions
from xlm_bytebpe.tokenizer import ByteBPE

from xlm_plugins import BundleError

TEXTS = ["In the beginning was the word, and the word was short.", "  two  spaces", "l'été"] * 3
SIZE = 290


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of tokenizer.json, as `save` writes it."""
    folder = tmp_path_factory.mktemp("saved")
    ByteBPE.train(TEXTS, SIZE, ByteBPEOptions(), folder, 1)
    tree: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return tree


def ids(tokenizer: ByteBPE | None) -> list[list[int]]:
    assert tokenizer is not None
    return [row.tolist() for row in tokenizer.encode_batch(TEXTS).rows]


def write(folder: Path, saved: dict[str, Any], form: str) -> Path:
    """Write the tokenizer into a folder as other libraries do.

    :param form: the file that is typical of it.
    """
    if form == "tokenizer.json":
        (folder / form).write_text(json.dumps(saved))
        return folder
    vocabulary, merges = saved["model"]["vocab"], saved["model"]["merges"]
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    names = ("vocab.json", "merges.txt")
    if form == "dict.txt":
        names = ("encoder.json", "vocab.bpe")
        own = sorted(vocabulary, key=vocabulary.__getitem__)[4:-1]
        vocabulary = {token: number for number, token in enumerate(sorted(own))}
        (folder / form).write_text("".join(f"{vocabulary[token]} 7\n" for token in own))
    (folder / names[0]).write_text(json.dumps(vocabulary))
    (folder / names[1]).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json", "dict.txt"])
def test_every_form_gives_the_same_tokenizer(
    saved: dict[str, Any], tmp_path: Path, form: str
) -> None:
    found = ByteBPE.from_hugging_face(write(tmp_path, saved, form))
    wanted = write(tmp_path, saved, "tokenizer.json") and ByteBPE.load(tmp_path)
    assert found is not None
    assert found.fingerprint == wanted.fingerprint
    assert ids(found) == ids(wanted)


@pytest.mark.parametrize(
    ("form", "config", "prefix_space"),
    [
        ("vocab.json", None, False),
        ("vocab.json", {"add_prefix_space": True}, True),
        ("tokenizer.json", None, False),  # RoBERTa's class ignores tokenizer.json
        ("tokenizer.json", {"add_prefix_space": True}, True),
        ("tokenizer.json", {"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ("dict.txt", None, False),
    ],
)
def test_the_space_before_a_line_is_as_in_transformers(
    saved: dict[str, Any],
    tmp_path: Path,
    form: str,
    config: dict[str, Any] | None,
    prefix_space: bool,
) -> None:
    cut = {**saved["pre_tokenizer"], "add_prefix_space": form == "tokenizer.json"}
    write(tmp_path, saved | {"pre_tokenizer": cut}, form)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = ByteBPE.from_hugging_face(tmp_path)
    assert found is not None
    (line,), (word,) = found.encode_batch(["the"]).rows, found.encode_batch([" the"]).rows
    assert (line.tolist() == word.tolist()) is prefix_space


def test_tokens_that_no_merge_makes_keep_their_ids(saved: dict[str, Any], tmp_path: Path) -> None:
    model = saved["model"]
    added = {"content": "<extra>", "id": SIZE + 1, "special": True}
    vocabulary = model["vocab"] | {"madeupword0000": SIZE}
    tree = saved | {"model": model | {"vocab": vocabulary}, "added_tokens": [added]}
    found = ByteBPE.from_hugging_face(write(tmp_path, tree, "tokenizer.json"))
    assert found is not None
    assert found.reserved() == (0, 1, 2, 3, SIZE - 1, SIZE, SIZE + 1)
    assert found.tokens()[SIZE:] == ["madeupword0000", "<extra>"]
    row = found.encode_batch(["madeupword0000 <extra>"]).values.tolist()
    assert not set(row) & set(found.reserved())
    assert found.decode_batch([[SIZE, *row, SIZE + 1]]) == ["madeupword0000 <extra>"]


def test_merges_may_be_strings(saved: dict[str, Any], tmp_path: Path) -> None:
    merges = [" ".join(pair) for pair in saved["model"]["merges"]]
    tree = saved | {"model": saved["model"] | {"merges": merges}}
    assert ids(ByteBPE.from_hugging_face(write(tmp_path, tree, "tokenizer.json")))


def test_other_tokenizers_are_left_to_others(saved: dict[str, Any], tmp_path: Path) -> None:
    assert ByteBPE.from_hugging_face(tmp_path) is None
    write(tmp_path, {"model": {"vocab": {"the</w>": 0, "Ġ": 1}, "merges": []}}, "vocab.json")
    assert ByteBPE.from_hugging_face(tmp_path) is None  # XLM's
    for tree in (
        {"model": {"type": "Unigram"}},
        saved | {"pre_tokenizer": {"type": "Metaspace"}},
        saved | {"pre_tokenizer": None},
    ):
        write(tmp_path, tree, "tokenizer.json")
        assert ByteBPE.from_hugging_face(tmp_path) is None


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("form", "change", "facts"),
    [
        ("tokenizer.json", lambda t: t.update(normalizer={"type": "NFC"}), ("normalizer", "NFC")),
        ("tokenizer.json", lambda t: t["model"].update(dropout=0.1), ("dropout", "0.1")),
        ("tokenizer.json", lambda t: t["model"].update(ignore_merges=True), ("ignore_merges",)),
        ("tokenizer.json", lambda t: t["pre_tokenizer"].update(use_regex=False), ("use_regex",)),
        (
            "tokenizer.json",
            lambda t: t.update(
                pre_tokenizer={"type": "Sequence", "pretokenizers": [t["pre_tokenizer"]]}
            ),
            ("pre_tokenizer", "Sequence"),
        ),
        (
            "tokenizer.json",
            lambda t: t.update(added_tokens=[{"content": "new", "id": SIZE, "special": False}]),
            ("'new'", "special tokens only"),
        ),
        (
            "tokenizer.json",
            lambda t: t.update(added_tokens=[{"content": "<s>", "id": 5, "special": True}]),
            ("'<s>' two ids",),
        ),
        ("tokenizer.json", lambda t: t["model"].pop("merges"), ("damaged", "merges")),
        ("tokenizer.json", lambda t: t["model"].update(merges=[["a"]]), ("damaged",)),
        ("vocab.json", lambda t: t["model"]["vocab"].update({"new": 0}), ("'new' the id 0",)),
        ("vocab.json", lambda t: t["model"]["vocab"].update({"<mask>": 900}), ("900", "289")),
        ("vocab.json", lambda t: t["model"]["vocab"].update({"<mask>": "x"}), ("'x'",)),
        ("vocab.json", lambda t: _renamed(t, "<mask>", "[MASK]"), ("special tokens", "'<mask>'")),
        ("vocab.json", lambda t: _renamed(t, "!", "!!"), ("256 bytes", "'!'")),
        ("vocab.json", lambda t: _renamed(t, "he", "hee"), ("h e, has 'he'", "merges.txt")),
        ("vocab.json", lambda t: t["model"].update(merges=[]), ("tokens", "none of the 0 merges")),
        ("vocab.json", lambda t: t["model"]["merges"].append(("Ġ t", "h")), ("merges.txt, line",)),
        ("dict.txt", lambda t: _renamed(t, "he", "hee"), ("dict.txt", "'he'")),
    ],
)
def test_damaged_or_unsupported_files_are_refused(
    saved: dict[str, Any], tmp_path: Path, form: str, change: Change, facts: tuple[str, ...]
) -> None:
    tree = json.loads(json.dumps(saved))
    change(tree)
    with pytest.raises(BundleError) as error:
        ByteBPE.from_hugging_face(write(tmp_path, tree, form))
    reported = str(error.value)
    for fact in (*facts, str(tmp_path)):
        assert fact in reported


def _renamed(tree: dict[str, Any], token: str, instead: str) -> None:
    vocabulary = tree["model"]["vocab"]
    vocabulary[instead] = vocabulary.pop(token)
