"""Ranks that would not do the same are found and named."""

from __future__ import annotations

from dataclasses import replace

from xlm_plugins.config.training import OptimizerOptions, RunOptions, TrainOptions
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.distributed import agreement

OPTIONS = RunOptions(seed=1)


def facts(
    options: RunOptions = OPTIONS, *, data: str = "f00d", drawn: tuple[str, ...] = ("mlm:en",) * 3
) -> dict[str, str]:
    optimizer = OptimizerOptions()
    return agreement.facts(options, optimizer, {"dim": 4}, data, 0, drawn, Plugins.discover())


def test_equal_ranks_agree() -> None:
    assert agreement.differences([facts()] * 3) == []


def test_paths_and_speed_may_differ() -> None:
    own = {"out": "/elsewhere", "workers": 3, "threads": 2, "data": "/d", "data_cache": "/c"}
    mine, other = TrainOptions(seed=1), TrainOptions(seed=1, data_cache_gb=1.5, **own)
    assert agreement.differences([facts(mine), facts(other)]) == []


def test_each_difference_names_its_rank() -> None:
    found = agreement.differences([facts(), facts(), facts(replace(OPTIONS, seed=2), data="beef")])
    assert found == ["--seed: rank 0 has 1, rank 2 has 2", "data: rank 0 has f00d, rank 2 has beef"]


def test_other_objectives_are_shown() -> None:
    (found,) = agreement.differences([facts(), facts(drawn=("tlm:en-fr", "mlm:en", "mlm:en"))])
    assert found.startswith("objectives of the next updates: rank 0 has ")
    assert "mlm:en mlm:en mlm:en, rank 1 has " in found
    assert found.endswith("tlm:en-fr mlm:en mlm:en")


def test_other_code_is_found(monkeypatch) -> None:
    mine = facts()
    monkeypatch.setattr(agreement, "_sources", lambda: "old")
    (found,) = agreement.differences([mine, facts()])
    assert found.startswith("xlm-plugins: ")


def test_only_a_few_of_many_ranks_are_named() -> None:
    others = [facts(data=str(rank)) for rank in range(9)]
    (found,) = agreement.differences([facts(), *others])
    assert found.endswith("rank 3 has 2 and 6 more ranks")


def test_a_single_process_compares_nothing() -> None:
    agreement.check(facts())
