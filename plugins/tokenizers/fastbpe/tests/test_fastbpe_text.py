# ruff: noqa: RUF001 (text in several scripts)
"""Text to words and back: Moses' rules by language, case, accents, and the segmenters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacremoses
from xlm_fastbpe.pretokenization import Pretokenizer, Rules, likely_language

from xlm_plugins import PluginError
from xlm_plugins.data.prepare.embedded import embedded_sentences

SPANISH = Path(__file__).with_name("verses.es.txt")  # of the Reina-Valera of 1909, public domain


def words(text: str, language: str = "en", **how: bool) -> str:
    return Pretokenizer((language,), **how).words(text)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Mr. O'Neil's dog, isn't it?", "Mr. O 'Neil 's dog , isn 't it ?"),
        ("fr", "L'été d’avant: « oui »", "L' été d' avant : \" oui \""),
        ("de", "Er sagt's z.B. „so“.", 'Er sagt \' s z.B. " so " .'),
        ("en", "5,300.5 % (1\u00a0000)", "5,300.5 % ( 1.000 )"),
        ("de", "1\u00a0000", "1,000"),
        ("en", "a\u200bb\tc\ue000d\u0007e", "a b c d e"),  # non-printing characters become spaces
        ("en", "<b> & [x] | <special1>", "< b > & [ x ] | < special1 >"),  # nothing is escaped
        ("en", "你好，世界。", "你 好 , 世 界 ."),  # not letters by English rules
        ("en", "  \t ", ""),
    ],
)
def test_words_are_split_by_the_rules_of_the_language(
    language: str, text: str, expected: str
) -> None:
    assert words(text, language) == expected


def test_case_and_accents_are_removed_on_request() -> None:
    text = "Ça, c'EST l'Été: Ôter İ"
    assert words(text, "fr", lowercase=True) == "ça , c' est l' été : ôter i̇"
    assert words(text, "fr", remove_accents=True) == "Ca , c' EST l' Ete : Oter I"
    both = words(text, "fr", lowercase=True, remove_accents=True)
    assert both == "ca , c' est l' ete : oter i"
    assert words("हिन्दी", "hi", remove_accents=True) == "हिनदी"  # all of category Mn


def test_quicker_rules_are_the_rules_of_sacremoses() -> None:
    """The normaliser and the tokenizer are theirs, except that two steps are faster."""
    texts = {code: embedded_sentences("valid", code)[:100] for code in ("en", "fr", "de")}
    texts["es"] = SPANISH.read_text(encoding="utf-8").splitlines()
    for language, verses in texts.items():
        lines = [
            *verses,
            "U.S. No. 5 vs. A.B.C. e.g. this",
            "„a“ – b—c ‘d’ … ``e'' ％ ．x",
            "x. y. 中. 가.",
        ]
        normalizer = sacremoses.MosesPunctNormalizer(
            language, perl_parity=True, pre_replace_unicode_punct=True
        )
        tokenizer = sacremoses.MosesTokenizer(language)
        rules = Rules(language, lowercase=False, remove_accents=False)
        for line in lines:
            found = tokenizer.tokenize(normalizer.normalize(line), escape=False)
            assert rules.words(line).split() == found


def test_words_become_text_again() -> None:
    for language, text in [
        ("en", "Mr. O'Neil's dog isn't here, is it? (5,300.5 %) \"So,\" he said."),
        ("fr", "L'été est là, n'est-ce pas?"),
        ("de", "Er sagt: so; z.B. hier!"),
        ("en", "if a < b & b > c: done."),
    ]:
        of_language = Pretokenizer((language,))
        back = of_language.text(of_language.words(text).split())
        assert back.replace(" ?", "?").replace(" %", "%") == text.replace(" %", "%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The house of the Lord", "en"),
        ("isn't it O'Neil's? I'd say they're 'so'", "en"),
        ("Qu'il parle, dit-elle", "fr"),
        ("c' est l’eau d' ici", "fr"),
        ("太初有道，道與神同在。", "zh"),
        ("はじめに言葉があった", "ja"),
        ("漢字です", "ja"),
        ("ในปฐมกาล word", "th"),
        ("the word 道 means way", "en"),
        ("5,300", "en"),
        ("", "en"),
    ],
)
def test_an_unknown_language_is_guessed(text: str, expected: str) -> None:
    assert likely_language(text, ("en", "de", "fr", "ja", "th", "zh")) == expected


def test_only_languages_of_the_text_are_guessed() -> None:
    assert likely_language("Qu'il parle", ("en", "de")) == "en"
    assert likely_language("太初有道", ("en", "ja")) == "ja"
    assert likely_language("太初有道", ("en",)) == "en"
    assert likely_language("word", ("zh", "de")) == "de"
    assert likely_language("word", ("zh",)) == "zh"


def test_a_given_language_wins() -> None:
    pretokenizer = Pretokenizer(("en", "fr"))
    assert pretokenizer.words("O'Neil d'ici") == "O' Neil d' ici"
    assert pretokenizer.words("O'Neil d'ici", "en") == "O 'Neil d 'ici"


@pytest.mark.parametrize(
    ("language", "module"), [("zh", "rjieba"), ("th", "pythainlp.tokenize"), ("ja", "fugashi")]
)
def test_a_missing_segmenter_is_named(
    monkeypatch: pytest.MonkeyPatch, language: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, "unidic_lite", SimpleNamespace())
    monkeypatch.setitem(sys.modules, module, None)
    rules = Rules(language, lowercase=False, remove_accents=False)
    with pytest.raises(PluginError, match=module.partition(".")[0]) as error:
        rules.words("text")
    assert error.value.remedy == f"pip install 'xlm-fastbpe[{language}]'"


def test_segmenters_come_where_xlm_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the normaliser in Chinese, after it elsewhere; Moses' tokenizer is not used."""
    seen = {}

    def cut(name: str):
        def of_name(text: str) -> list[str]:
            seen[name] = text
            return text.split(".")

        return of_name

    monkeypatch.setitem(sys.modules, "rjieba", SimpleNamespace(cut=cut("zh")))
    thai = SimpleNamespace(word_tokenize=cut("th"))
    monkeypatch.setitem(sys.modules, "pythainlp.tokenize", thai)
    monkeypatch.setitem(sys.modules, "unidic_lite", SimpleNamespace())
    tagger = SimpleNamespace(parse=lambda text: " ".join(cut("ja")(text)))
    monkeypatch.setitem(sys.modules, "fugashi", SimpleNamespace(Tagger=lambda options: tagger))
    found = {
        name: Rules(name, lowercase=False, remove_accents=False).words("a.b，c!")
        for name in ("zh", "th", "ja")
    }
    assert seen == {"zh": "a.b，c!", "th": "a.b,c!", "ja": "a.b,c!"}
    assert found == {"zh": "a b,c!", "th": "a b,c!", "ja": "a b,c!"}


@pytest.mark.parametrize(
    ("language", "module", "text", "n_words"),
    [
        ("zh", "rjieba", "我来到北京清华大学。", 5),
        ("th", "pythainlp", "ฉันรักภาษาไทย", 3),
        ("ja", "unidic_lite", "すもももももももものうち", 7),
    ],
)
def test_text_without_spaces_is_split_and_joined(
    language: str, module: str, text: str, n_words: int
) -> None:
    pytest.importorskip(module)
    rules = Rules(language, lowercase=False, remove_accents=False)
    found = rules.words(text).split()
    assert len(found) == n_words
    assert rules.text(found) == text.replace("。", ".")
