"""Held-out text comes back as it was written."""

from __future__ import annotations

from pathlib import Path

from xlm_plugins.data.held_out import held_out_text
from xlm_plugins.data.manifest import Manifest


def test_a_pair_in_either_order(tiny_source: Path, tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    sides = [
        (tiny_source / f"test.en-fr.{code}.txt").read_text(encoding="utf-8").splitlines()
        for code in ("en", "fr")
    ]
    english, french = held_out_text(tiny_data, manifest, "test", ("en", "fr"), 1000)
    assert [english, french] == sides
    assert held_out_text(tiny_data, manifest, "test", ("fr", "en"), 1000) == (french, english)


def test_fewer_are_spread_evenly(tiny_source: Path, tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    (few,) = held_out_text(tiny_data, manifest, "valid", ("fr",), 4)
    lines = (tiny_source / "valid.fr.txt").read_text(encoding="utf-8").splitlines()
    assert few == [lines[0], lines[13], lines[26], lines[39]]


def test_training_text_and_what_there_is_not_have_none(tiny_data: Path) -> None:
    manifest = Manifest.load(tiny_data)
    assert held_out_text(tiny_data, manifest, "train", ("en",), 5) == ()
    assert held_out_text(tiny_data, manifest, "valid", ("de",), 5) == ()
    assert held_out_text(tiny_data, manifest, "nowhere", ("en",), 5) == ()
