"""DeepSpeed behind the engine interface: several processes, ZeRO sharding, and fp16.

The only file that imports deepspeed.  What it uses of DeepSpeed's internals (moments before the
first step, stage 3's gradient buffer) was found by experiment: the version is pinned and tested.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xlm_plugins.config.training import OptimizerOptions, RunOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.weights import named_weights
from xlm_plugins.training.distributed.process_group import World
from xlm_plugins.training.distributed.signals import StopRequest
from xlm_plugins.training.engines.engine import Engine, StepReport, on_cpu
from xlm_plugins.training.engines.training_state import TrainingState, moments_for
from xlm_plugins.training.optim import parameter_groups as optim
from xlm_plugins.training.optim.adamw import MOMENTS, Piece

if TYPE_CHECKING:
    from xlm_plugins.model.model import Model

_SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine(Engine):
    """ZeRO stages 0 to 3 in fp32, bf16 and fp16.

    A state cannot be loaded later, because ZeRO shards the weights as it finds them.
    """

    def __init__(
        self,
        model: Model,
        options: OptimizerOptions,
        train: RunOptions,
        world: World,
        state: TrainingState | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__(model, options, train, world, state, stop)
        self.stage = train.zero_stage
        self.can_generate = self.stage < 3
        if self.precision == "fp16" and self.stage == 0:
            raise OptionError(
                "fp16 keeps its fp32 weights in ZeRO, and --zero-stage 0 has none",
                expected="--zero-stage 1, 2 or 3 with fp16",
            )
        # ZeRO shards or rounds frozen parameters too, so checkpoints take them from this copy.
        self._frozen = {
            name: on_cpu(parameter)
            for name, parameter in model.named_parameters()
            if name not in self._trained
        }
        self._order = list(named_weights(model))
        config = configuration(options, train, self.precision, world)
        self._engine = _initialize(model, optim.adamw(self.groups), config, world)
        self._zero = self._engine.optimizer
        self._optimizer = self._zero if self.stage == 0 else self._zero.optimizer
        self._buffers = _running_statistics(model)
        self._start_moments()
        self._register_pieces()
        if state is not None:
            self._restore(state)
        model.train()

    def _forward(self, trainable: Trainable, batch: Batch) -> LossOutput:
        return LossOutput(*self._engine(trainable, batch))

    def _backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over ranks; the interface sums.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self, rate: float) -> StepReport:
        optim.set_rates(self._optimizer, self.groups, self.options, rate, self._n_updates)
        if self.stage == 0:
            self._engine.buffered_allreduce_fallback()
            norm = optim.update(self._optimizer, self.options.clip)
            skipped = not math.isfinite(norm)
        else:
            self._engine.step()
            skipped = not self._engine.was_step_applied()
            norm = math.inf if skipped else float(self._engine.get_global_grad_norm())
        if self.stage == 3:
            # Stage 3 never clears its buffer: a parameter that the next objective does not use
            # would be updated with this step's gradient again.
            self._zero.grad_partitions_flat_buffer.zero_()
        self._n_updates += not skipped
        self._share_buffers()
        return StepReport(norm, skipped)

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        found = dict(self._frozen)
        for name, parameter in self._trained.items():
            whole = parameter if self.stage == 0 else safe_get_full_fp32_param(parameter)
            self._keep(found, name, whole)
        buffers = dict(self.model.named_buffers())
        found.update((name, on_cpu(buffers[name])) for name in self._order if name in buffers)
        return {name: found[name] for name in self._order} if self.rank == 0 else {}

    def state(self) -> TrainingState:
        from deepspeed.utils import safe_get_full_optimizer_state

        moments: dict[str, dict[str, Tensor]] = {key: {} for key in MOMENTS}
        for name, parameter in self._trained.items():
            for key, found in moments.items():
                if self.stage == 0:
                    whole = self._optimizer.state[parameter][key]
                else:
                    whole = safe_get_full_optimizer_state(parameter, key)
                self._keep(found, name, whole)
        scaling = {}
        if self.precision == "fp16":
            scaling = {key: getattr(self._zero.loss_scaler, key) for key in _SCALER_FIELDS}
        return TrainingState(self.weights(), moments, self._n_updates, scaling)

    @contextmanager
    def keeping_loss_scale(self) -> Iterator[None]:
        scaler = self._zero.loss_scaler if self.precision == "fp16" else None
        kept = {key: getattr(scaler, key) for key in _SCALER_FIELDS} if scaler else {}
        yield
        for key, value in kept.items():
            setattr(scaler, key, value)

    def _keep(self, found: dict[str, Tensor], name: str, whole: Tensor) -> None:
        """Keep a gathered tensor, on rank 0 only: the others have no use for it."""
        if self.rank == 0:
            found[name] = on_cpu(whole)

    def _share_buffers(self) -> None:
        """Give all ranks the running statistics of rank 0: a checkpoint holds one set of them."""
        if self.world_size == 1 or not self._buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in self._buffers])
        dist.broadcast(flat, src=0)
        sizes = [buffer.numel() for buffer in self._buffers]
        for buffer, shared in zip(self._buffers, torch.split(flat, sizes), strict=True):
            buffer.copy_(shared.view_as(buffer))

    def _start_moments(self) -> None:
        """Create the moments now: DeepSpeed has none before the first step.

        DeepSpeed (0.19.8) links moments to parameters after the first group's step, when other
        groups have none yet; linking them here gives all groups theirs.
        """
        if self.stage == 3:
            tensors = self._zero.fp32_partitioned_groups_flat
        elif self.stage:
            tensors = self._zero.single_partition_of_fp32_groups
        else:
            tensors = self._trained.values()
        self._optimizer.start(tensors, self._n_updates)
        if self.stage in (1, 2):
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()
        if self.precision == "fp16":  # the trainer counts skipped updates and ends the run
            self._zero.loss_scaler.raise_error_at_min_scale = False

    def _register_pieces(self) -> None:
        """Tell the optimizer where rows are in the flat partitions that ZeRO makes of groups."""
        for group in self.groups if self.stage else ():
            for parameter in group.parameters if group.touched_rows else ():
                if found := self._piece(parameter):
                    flat, piece = found
                    self._optimizer.pieces.setdefault(flat, []).append(piece)

    def _piece(self, parameter: Any) -> tuple[Tensor, Piece] | None:
        """This rank's part of a parameter, if any, and the partition that contains it."""
        if self.stage == 3:
            index, start, n_own = self._zero.grad_position[self._zero.get_param_id(parameter)]
            offset = n_own * self.rank
            n = min(n_own, parameter.ds_numel - offset)  # the last rank's may be padded
            row = parameter.ds_shape[1:].numel()
            flat = self._zero.fp32_partitioned_groups_flat[index]
            return (flat, Piece(start, n, offset, row)) if n > 0 else None
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        flat = self._zero.single_partition_of_fp32_groups[mapping.param_group_index]
        here, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
        row = parameter.shape[1:].numel()
        return flat, Piece(here.start, here.numel, whole.start, row)

    def _restore(self, state: TrainingState) -> None:
        moments = moments_for(state, self._trained)
        for name, parameter in self._trained.items():
            for key in MOMENTS:
                self._set(parameter, key, moments[key][name])
            if self.precision == "fp16":  # the fp32 weight was copied from a rounded one
                self._set(parameter, None, state.weights[name])
        if self.precision == "fp16":
            for key, value in state.loss_scale.items():
                setattr(self._zero.loss_scaler, key, value)

    def _set(self, parameter: Any, key: str | None, whole: Tensor) -> None:
        """Set a moment (``key``) or the fp32 weight (None) of a parameter from the whole tensor."""
        whole = whole.to(self.device)
        if self.stage == 0:
            self._optimizer.state[parameter][key].copy_(whole)
        elif self.stage == 3:
            # set_full_hp_param ignores that the last rank's partition may be padded
            n_own = parameter.ds_tensor.numel()
            padded = nn.functional.pad(
                whole.flatten(), (0, n_own * self.world_size - whole.numel())
            )
            own = padded.narrow(0, n_own * self.rank, n_own)
            self._zero.set_local_hp_param(own, parameter, key)
        else:
            parameter.set_full_hp_param(whole, key)


def _running_statistics(model: nn.Module) -> list[Tensor]:
    """The buffers that training changes and checkpoints hold."""
    return [
        tensor
        for tensor in named_weights(model).values()
        if not isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
    ]


def configuration(
    options: OptimizerOptions, train: RunOptions, precision: str, world: World
) -> dict[str, Any]:
    """DeepSpeed's configuration: the run's own, and what the user's JSON adds.

    :raises OptionError: the JSON cannot be read, or contradicts the run's own options.
    """
    ours: dict[str, Any] = {
        "train_batch_size": world.world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # `step` is the boundary
        "gradient_clipping": options.clip,
        "zero_optimization": {"stage": train.zero_stage},
        "zero_allow_untested_optimizer": True,  # a subclass of torch's, tested here
        "bf16": {"enabled": False},
        "fp16": {"enabled": precision == "fp16"},
        "torch_autocast": {
            "enabled": precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # reduce gradients in fp32
        },
    }
    if train.deepspeed_config is None:
        return ours
    path = Path(train.deepspeed_config)
    try:
        added = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--deepspeed-config {path} cannot be read: {error}") from error
    if not isinstance(added, dict):
        raise OptionError(f"--deepspeed-config {path} does not hold a JSON object")
    for key in ("optimizer", "scheduler"):
        if key in added:
            raise OptionError(
                f"{path} sets {key!r}, which the run sets itself",
                remedy="leave it out, and use --lr, --schedule, --warmup and related options",
            )
    return _merged(ours, added, str(path))


def _merged(ours: Mapping[str, Any], added: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged = dict(ours)
    for key, value in added.items():
        if key not in ours:
            merged[key] = value
        elif isinstance(ours[key], dict) and isinstance(value, dict):
            merged[key] = _merged(ours[key], value, f"{where}: {key}")
        elif value != ours[key]:
            raise OptionError(
                f"{where}: {key} = {value!r} contradicts the run, which has {ours[key]!r}",
                remedy="leave it out of the JSON, and use the run's own option",
            )
    return merged


def _initialize(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], world: World
) -> Any:
    """Import DeepSpeed quietly, join it to the process group, and wrap the model."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:  # standard output is for results
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    # torch renamed collectives that DeepSpeed calls at every step.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    # Otherwise init compiles a C++ op, and a killed build leaves a lock that hangs all later runs.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine
