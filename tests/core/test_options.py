"""Options dataclasses: what they declare, and which values they refuse."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import pytest

from xlm_plugins import OptionError, option
from xlm_plugins.core.options import build, fields_of, to_mapping, with_absolute_paths


@dataclass(frozen=True)
class Example:
    n_keys: int = option(128, "sub-keys", minimum=2, maximum=1024)
    rate: float = option(0.5, "a rate", above=0.0, maximum=1.0)
    kind: str = option("flat", "of memory", choices=("flat", "product"))
    normalised: bool = option(False, "normalise queries")
    width: int | None = option(None, "its width")
    names: tuple[str, ...] = option((), "several")
    metrics: tuple[str, ...] = option((), "several, with commas", comma=True)


def test_fields_are_resolved() -> None:
    fields = {field.key: field for field in fields_of(Example)}
    assert next(iter(fields)) == "n-keys"
    assert (fields["n-keys"].kind, fields["n-keys"].default) == (int, 128)
    assert fields["width"].optional
    assert not fields["rate"].optional
    assert fields["names"].many
    assert fields["kind"].info.choices == ("flat", "product")


def test_a_field_without_declaration_is_a_type_error() -> None:
    @dataclass
    class Undeclared:
        x: int = 1

    with pytest.raises(TypeError, match=r"Undeclared\.x must be declared"):
        fields_of(Undeclared)


def test_a_type_that_flags_cannot_express_is_a_type_error() -> None:
    Odd = make_dataclass("Odd", [("x", dict[str, int], option(None, "a mapping"))])  # noqa: N806
    with pytest.raises(TypeError, match="an option is a bool, int, float, str"):
        fields_of(Odd)


def test_keys_may_have_dashes_or_underscores() -> None:
    assert build(Example, {"n-keys": 4}, "x") == build(Example, {"n_keys": 4}, "x")


def test_an_integer_is_accepted_as_a_float() -> None:
    rate = build(Example, {"rate": 1}, "x").rate
    assert rate == 1.0
    assert type(rate) is float


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n-keys": 1}, "at least 2"),
        ({"n-keys": 2000}, "at most 1024"),
        ({"n-keys": 2.5}, "of type int"),
        ({"n-keys": True}, "of type int"),
        ({"n-keys": None}, "of type int"),
        ({"rate": 0.0}, "more than 0.0"),
        ({"rate": float("nan")}, "finite"),
        ({"kind": "produkt"}, "did you mean 'product'"),
        ({"normalised": "yes"}, "of type bool"),
        ({"names": [1]}, "of type str"),
        ({"n-kyes": 4}, "did you mean 'n-keys'"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as error:
        build(Example, values, "pkm")
    assert said in str(error.value)
    assert "pkm" in error.value.problem


def test_several_values_may_be_one_with_commas() -> None:
    assert build(Example, {"names": ["a,b", "c"]}, "x").names == ("a,b", "c")
    assert build(Example, {"names": "a"}, "x").names == ("a",)
    assert build(Example, {"metrics": ["a,b", "c"]}, "x").metrics == ("a", "b", "c")


def test_options_round_trip_through_toml_form() -> None:
    options = build(Example, {"n_keys": 8, "names": ["a"], "width": 3}, "x")
    mapping = to_mapping(options)
    assert mapping["n-keys"] == 8
    assert mapping["names"] == ["a"]
    assert build(Example, mapping, "x") == options


def test_none_is_left_out_of_toml_form() -> None:
    assert "width" not in to_mapping(Example())


def test_paths_become_absolute_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Files:
        folder: str | None = option(None, "a folder", path=True)
        files: tuple[str, ...] = option((), "files", comma=True, path=True)
        name: str = option("x", "no path")

    monkeypatch.chdir(tmp_path)
    files = ("en=b/c.tsv", "d", "en=../x=1/f", "../x=1/f")
    absolute = (f"en={tmp_path}/b/c.tsv", f"{tmp_path}/d")
    beside = f"{tmp_path.parent}/x=1/f"
    found = with_absolute_paths(Files("a", files, "e"))
    assert found == Files(f"{tmp_path}/a", (*absolute, f"en={beside}", beside), "e")
    assert with_absolute_paths(Files()) == Files()
    assert with_absolute_paths(found) == found
