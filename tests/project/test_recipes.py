"""The recipes: each can be run with the command at its top."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xlm_plugins.config.settings import Settings, read_toml, resolve
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.selection import ObjectiveSelection

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


def resolved(path: Path) -> Settings:
    return resolve(read_toml(path), {}, Plugins.discover())


def weight_of_ae(recipe: str) -> tuple[tuple[int, float], ...]:
    for text in resolved(ROOT / "recipes" / f"{recipe}.toml").train.objective:
        if text.startswith("ae"):
            return ObjectiveSelection.parse(text).weight.points
    raise AssertionError(f"{recipe} has no ae")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_and_shows_its_command(path: Path) -> None:
    train = resolved(path).train
    assert (train.data, train.out, train.init) == (None, None, ())  # those are the reader's own
    comment = "\n".join(
        line.removeprefix("#")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    commands = re.sub(r"\\\n", " ", comment).splitlines()
    words = [word for line in commands if " xlm train " in line for word in shlex.split(line)]
    assert words.count(f"recipes/{path.name}") == 1
    assert re.search(r"arXiv \d{4}\.\d{5}, section", comment)
    assert "Measured: " in comment


def test_the_page_on_recipes_knows_them_all() -> None:
    page = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\((\S+\.toml)\)", page)) == {path.name for path in RECIPES}


def test_small_and_published_weights_have_one_shape() -> None:
    small, published = (weight_of_ae(f"unsupervised-mt-{size}") for size in ("small", "paper"))
    assert published == ((0, 1.0), (100_000, 0.1), (300_000, 0.0))
    assert small == tuple((at // 250, weight) for at, weight in published)
