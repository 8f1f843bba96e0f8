"""RoBERTa's tokenizer in the files of others: new and old ones of transformers, and fairseq's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_bytebpe.learning import Pair
from xlm_bytebpe.letters import SPACE
from xlm_plugins import BundleError, read_json

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
VOCABULARY_NAME, MERGES_NAME = "vocab.json", "merges.txt"
GPT2_VOCABULARY_NAME, GPT2_MERGES_NAME, DICTIONARY_NAME = "encoder.json", "vocab.bpe", "dict.txt"

_OWN_RULES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Features of the library's BPE that RoBERTa does not use, and the values that turn them off.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


@dataclass(frozen=True)
class Parts:
    """The parts of a tokenizer.

    :param origin: the files, for error messages.
    """

    origin: str
    tokens: list[str]
    merges: list[Pair]
    prefix_space: bool


def find_parts(folder: Path) -> Parts | None:
    """The byte-level BPE tokenizer in a folder in Hugging Face's or fairseq's format.

    :returns: None if there is none.
    :raises BundleError: a file is damaged, or uses other rules than RoBERTa's.
    """
    path = folder / TOKENIZER_NAME
    if path.is_file():
        tree = read_json(path)
        return _parts_of(path, tree, _prefix_space(folder, tree)) if _is_byte_level(tree) else None
    if _all_there(folder, VOCABULARY_NAME, MERGES_NAME):
        return _of_two_files(folder)
    if _all_there(folder, GPT2_VOCABULARY_NAME, GPT2_MERGES_NAME, DICTIONARY_NAME):
        return _of_fairseq(folder)
    return None


def read_saved(path: Path) -> Parts:
    """Read a tokenizer.json that stands alone.

    :raises BundleError: it is damaged, or of another type.
    """
    tree = read_json(path)
    if not _is_byte_level(tree):
        raise BundleError(f"{path} holds another type of tokenizer", expected="byte-level BPE")
    return _parts_of(path, tree, bool(tree["pre_tokenizer"].get("add_prefix_space", True)))


def _all_there(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


def _is_byte_level(tree: Mapping[str, Any]) -> bool:
    model, cut = tree.get("model"), tree.get("pre_tokenizer")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return False
    steps = cut.get("pretokenizers", [cut]) if isinstance(cut, dict) else []
    return any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps)


def _prefix_space(folder: Path, tree: Mapping[str, Any]) -> bool:
    """Whether lines begin with a space, as transformers decides it: RoBERTa's class reads its
    configuration, not the tokenizer's file."""
    path = folder / CONFIG_NAME
    config = read_json(path) if path.is_file() else {}
    if config.get("tokenizer_class") in _OWN_RULES:
        return bool(tree["pre_tokenizer"].get("add_prefix_space", True))
    return bool(config.get("add_prefix_space", False))


def _parts_of(path: Path, tree: Mapping[str, Any], prefix_space: bool) -> Parts:
    try:
        _check_rules(path, tree)
        model = tree["model"]
        ids = dict(model["vocab"])
        for added in tree.get("added_tokens") or []:
            if ids.setdefault(added["content"], added["id"]) != added["id"]:
                raise BundleError(f"{path} gives {added['content']!r} two ids")
            if not added["special"]:
                raise BundleError(
                    f"{path} adds the token {added['content']!r}, which would be matched in text "
                    "before anything else: not supported",
                    expected="special tokens only",
                )
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        merges = [(left, right) for left, right in pairs]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return Parts(str(path), _in_order(path, ids), merges, prefix_space)


def _check_rules(path: Path, tree: Mapping[str, Any]) -> None:
    """Refuse whatever would tokenize text differently from RoBERTa's rules.

    :raises BundleError: names the first such setting.
    """
    model, cut = tree["model"], tree["pre_tokenizer"]
    rules = [(f"model.{name}", model.get(name), plain) for name, plain in _PLAIN.items()]
    rules += [
        ("normalizer", (tree.get("normalizer") or {}).get("type"), (None,)),
        ("pre_tokenizer", cut["type"], ("ByteLevel",)),
        ("pre_tokenizer.use_regex", cut.get("use_regex", True), (True,)),
    ]
    for name, given, plain in rules:
        if given not in plain:
            raise BundleError(
                f"{path} has {name} = {given!r}: not supported",
                expected=f"{plain[0]!r}, as in RoBERTa",
            )


def _of_two_files(folder: Path) -> Parts | None:
    path = folder / VOCABULARY_NAME
    ids = read_json(path)
    # XLM's own tokenizer has files of these names too.
    if SPACE not in ids or any(token.endswith("</w>") for token in ids):
        return None
    config = read_json(folder / CONFIG_NAME) if _all_there(folder, CONFIG_NAME) else {}
    return Parts(
        f"{path} with {MERGES_NAME}",
        _in_order(path, ids),
        _read_merges(folder / MERGES_NAME),
        bool(config.get("add_prefix_space", False)),
    )


def _of_fairseq(folder: Path) -> Parts:
    """fairseq's dictionary lists GPT-2's ids as words; the first one is RoBERTa's id 4."""
    path = folder / DICTIONARY_NAME
    written = _in_order(folder / GPT2_VOCABULARY_NAME, read_json(folder / GPT2_VOCABULARY_NAME))
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    for number, line in enumerate(_lines(path), start=1):
        word, _, count = line.rpartition(" ")
        if not count.isdecimal() or (word.isdecimal() and int(word) >= len(written)):
            raise BundleError(
                f"{path}, line {number}, is not an id of {GPT2_VOCABULARY_NAME} with its count: "
                f"{line[:60]!r}",
                expected=f"such as `13 850314647`, with ids below {len(written)}",
            )
        tokens.append(written[int(word)] if word.isdecimal() else word)
    merges = _read_merges(folder / GPT2_MERGES_NAME)
    origin = f"{path} with {GPT2_VOCABULARY_NAME} and {GPT2_MERGES_NAME}"
    return Parts(origin, [*tokens, "<mask>"], merges, prefix_space=False)


def _read_merges(path: Path) -> list[Pair]:
    merges = []
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 and line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise BundleError(
                f"{path}, line {number}, is not a merge of two tokens: {line[:60]!r}",
                expected="such as `Ġ t`",
            )
        merges.append((left, right))
    return merges


def _in_order(path: Path, ids: Mapping[str, Any]) -> list[str]:
    """The tokens of a vocabulary in order of their ids, which must be consecutive from 0."""
    tokens: list[str | None] = [None] * len(ids)
    for token, number in ids.items():
        inside = isinstance(number, int) and 0 <= number < len(ids)
        if not inside or tokens[number] is not None:
            raise BundleError(
                f"{path} gives {token!r} the id {number!r}"
                + (f", as {tokens[number]!r}" if inside else ""),
                expected=f"ids from 0 to {len(ids) - 1}, each once, for {len(ids)} tokens",
            )
        tokens[number] = token
    return [token for token in tokens if token is not None]


def _lines(path: Path) -> list[str]:
    """All lines that are not empty."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]
