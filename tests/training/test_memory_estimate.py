"""The memory estimate compared with what tensors really take."""

from __future__ import annotations

import pytest
import torch

from xlm_plugins.config.settings import resolve
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.memory_estimate import MemoryEstimate, bytes_in_words
from xlm_plugins.training.pretraining.job import Pretraining
from xlm_plugins.training.pretraining.plan import make_plan


@pytest.mark.parametrize(
    ("number", "told"),
    [(12, "12 bytes"), (999_499_999, "999 MB"), (4.2e9, "4.2 GB"), (5e12, "5000.0 GB")],
)
def test_bytes_are_written_with_units(number: float, told: str) -> None:
    assert bytes_in_words(number) == told


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "moments"),
    [(0, 400, 400, 800), (1, 500, 400, 200), (2, 500, 100, 200), (3, 100, 100, 200)],
)
def test_zero_shards_according_to_its_stage(
    stage: int, weights: int, gradients: int, moments: int
) -> None:
    from xlm_plugins.config.model import ModelOptions

    found = MemoryEstimate.of(
        ModelOptions(), 100, 100, 0, n_stacks=1, stage=stage, world_size=4, half=False
    )
    assert (found.weights, found.gradients, found.moments) == (weights, gradients, moments)
    assert found.total == weights + gradients + moments


@pytest.mark.parametrize("objective", ["mlm", "mt"])
def test_it_is_close_to_what_a_step_takes(tiny_data: object, objective: str) -> None:
    """Weights, gradients and moments to the byte; activations within a third."""
    plugins = Plugins.discover()
    model = {"dim": 64, "n_layers": 3, "n_heads": 4, "dropout": 0.1}
    train = {"objective": [objective], "data": str(tiny_data), "batch_tokens": 2048, "window": 64}
    settings = resolve({}, {"model": model, "train": train}, plugins)
    job = Pretraining(settings, make_plan(settings, plugins), plugins)
    engine = create_engine(job.build(), job.optimizer, job.options, World())
    (one,) = job.rehearsals(1)
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = [p for _, p in engine.model.named_parameters()]
    own = {p.untyped_storage().data_ptr() for p in parameters}
    own |= {part.untyped_storage().data_ptr() for part in (one.batch.tokens, one.batch.offsets)}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        engine.forward_backward(one.trainable, one.batch, 1.0)
    n_bytes = sum(p.nbytes for p in parameters)
    moments = sum(t.nbytes for kind in engine.state().moments.values() for t in kind.values())
    n = n_bytes // 4
    found = MemoryEstimate.of(
        job.description.options, n, n, one.batch.n_tokens,
        n_stacks=len(job.description.stacks), stage=0, world_size=1, half=False,
    )  # fmt: skip
    print(f"{objective}: measured {sum(kept.values())}, estimated {found.activations}")
    assert (found.weights, found.gradients, found.moments) == (n_bytes, n_bytes, moments)
    assert found.activations == pytest.approx(sum(kept.values()), rel=1 / 3)
