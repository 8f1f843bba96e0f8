"""Jobs and engines as a run makes them, for tests of what happens before the first update."""

from __future__ import annotations

import torch

from xlm_plugins.config.settings import Settings
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.engines.create import create_engine
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.pretraining.job import Pretraining
from xlm_plugins.training.pretraining.plan import make_plan


def job_of(settings: Settings) -> Pretraining:
    plugins = Plugins.discover()
    return Pretraining(settings, make_plan(settings, plugins), plugins)


def engine_of(job: Pretraining) -> Engine:
    """An engine in this process, always with the same weights."""
    torch.manual_seed(1)
    return create_engine(job.build(), job.optimizer, job.options, World())
