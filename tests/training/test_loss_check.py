"""Training refuses a loss in which the samples of a batch see each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.jobs import engine_of, job_of
from torch import Tensor
from xlm_mlm.objective import MaskedLanguageModelling
from xlm_mt.objective import MachineTranslation

from xlm_plugins import Batch, LossOutput, Model, Plugins
from xlm_plugins.config.settings import Settings
from xlm_plugins.contracts.splitting import by_sample, select
from xlm_plugins.core.errors import PluginError
from xlm_plugins.training import run_job
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import StopAsked
from xlm_plugins.training.distributed.watchdog import Watchdog
from xlm_plugins.training.loss_check import check_losses
from xlm_plugins.training.pretraining.job import train

MakeSettings = Callable[..., Settings]
ALL = ["mlm", "clm", "tlm:en-fr", "mt:en-fr", "ae:en", "bt:en-fr-en", "pc:en-fr"]
Change = Callable[[LossOutput, Batch], Tensor]

BAD: dict[str, Change] = {
    "a mean over the batch": lambda output, batch: output.loss / output.n_targets,
    "a term of the batch": lambda output, batch: output.loss + len(batch.sample_ids.unique()) ** 2,
    "neighbours that see each other": lambda output, batch: (
        output.loss * (1 + batch.sample_ids.diff().count_nonzero())
    ),
}


def changed_loss(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Give `mlm` another loss."""
    sound = MaskedLanguageModelling.loss

    def loss(self: MaskedLanguageModelling, model: Model, batch: Batch) -> LossOutput:
        output = sound(self, model, batch)
        return output._replace(loss=change(output, batch))

    monkeypatch.setattr(MaskedLanguageModelling, "loss", loss)


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_loss_over_several_samples_is_refused_by_name(
    change: Change, tiny_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed_loss(monkeypatch, change)
    with pytest.raises(PluginError, match=r"^the loss of mlm:\S+ is not a sum over") as error:
        train(tiny_settings(out=str(tmp_path / "run")), Plugins.discover())
    assert "4 samples together have" in str(error.value)
    assert "hint: find out more in a test: check_objective('mlm')" in str(error.value)
    assert error.value.exit_status == 2
    assert not list(tmp_path.iterdir())


def test_it_does_not_depend_on_how_many_samples_a_micro_batch_has(
    tiny_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = MachineTranslation.loss

    def loss(self: MachineTranslation, model: Model, batch: Batch) -> LossOutput:
        output = sound(self, model, batch)
        return output._replace(loss=output.loss * len(batch.sample_ids.unique()))

    monkeypatch.setattr(MachineTranslation, "loss", loss)
    job = job_of(tiny_settings(objective=["mt:en-fr"], layer=[]))
    (many,) = job.rehearsals(1)
    one = replace(many, batch=select(many.batch, by_sample(many.batch)[0]))
    with pytest.raises(PluginError, match=r"^the loss of mt:en-fr is not a sum over"):
        check_losses(engine_of(job), [one], Watchdog(World(), 10.0))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_built_in_loss_passes(tiny_settings: MakeSettings, precision: str) -> None:
    job = job_of(tiny_settings(objective=ALL, layer=[], precision=precision))
    rehearsals = job.rehearsals(1)
    assert {one.trainable.name for one in rehearsals} == {text.partition(":")[0] for text in ALL}
    check_losses(engine_of(job), rehearsals, Watchdog(World(), 10.0))


def test_a_checked_run_equals_an_unchecked_one_bitwise(
    tiny_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def metrics(name: str) -> list[dict[str, Any]]:
        path = train(tiny_settings(out=str(tmp_path / name), steps=4), Plugins.discover()).path
        lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        clock = ("time", "tokens_per_second")
        return [{k: v for k, v in line.items() if k not in clock} for line in lines]

    checked = metrics("checked")
    monkeypatch.setattr(run_job, "check_losses", lambda *arguments: None)
    assert checked == metrics("unchecked")


def test_a_signal_during_the_check_is_left_to_the_trainer(
    tiny_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_loss(monkeypatch, BAD["a mean over the batch"])
    job = job_of(tiny_settings())
    engine = engine_of(job)

    def stop() -> None:
        raise StopAsked

    monkeypatch.setattr(engine, "stop_if_asked", stop)
    check_losses(engine, job.rehearsals(1), Watchdog(World(), 10.0))
    assert engine.model.training
