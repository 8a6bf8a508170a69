"""How DeepSpeed trains the network: the only module that imports deepspeed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import deepspeed
import deepspeed.ops
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from cast_ray.training.buckets import bucket_size

__all__ = ["DeepSpeedStrategy", "deepspeed_config"]

ADAMW_STATE, SGD_STATE = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)
"""Names of what the optimisers of torch keep for every parameter."""
Precision = Literal["bf16", "fp16", "float32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}
SCALER_STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's dynamic loss scaler keeps."""


def deepspeed_config(
    *,
    precision: Precision,
    zero_stage: int,
    micro_batch: int,
    accumulation: int,
    clip_grad: float,
    trainable: int,
    offload_optimizer: bool = False,
) -> dict[str, Any]:
    """The complete DeepSpeed configuration of a run with so many trainable parameters.

    The optimiser is ours (torch's AdamW or SGD), so that no operator has to be compiled and the parameter groups stay
    as they are. Gradients are reduced in float32 even for bf16: 16 workers' sums lose too many digits otherwise.
    With bf16, updates are not skipped silently when a gradient is not finite; the loop sees the loss that follows. With
    fp16 they are, that is how the loss scale finds its level.
    """
    bucket = bucket_size(trainable)
    zero: dict[str, Any] = {"stage": zero_stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if zero_stage == 3:
        # By default up to 1e9 gathered parameters stay until the backward pass needs them: nothing would be saved.
        zero |= dict.fromkeys(
            ("stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_prefetch_bucket_size"), bucket
        )
    if offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip_grad,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": False},
        "fp16": {"enabled": precision == "fp16", "loss_scale": 0, "initial_scale_power": 16},  # 0: dynamic
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # SGD; tests/training/test_strategy.py is the test
        "zero_force_ds_cpu_optimizer": False,  # an operator that would have to be compiled
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


class DeepSpeedStrategy:
    """A network, its optimiser and the DeepSpeed engine around both.

    Args:
        network: trainable parameters already chosen by `requires_grad`; moved to the worker's device.
        groups: as `cast_ray.models.groups.parameter_groups` returns them.
        betas: AdamW's decay rates.
        config: as `deepspeed_config` returns it.
        momentum: takes SGD with this decay rate instead of AdamW.
        ema_decay: of the moving average of the weights; 0 keeps none.
        compiler: backend of torch.compile; None leaves the network as it is.

    The process group must exist, and LOCAL_RANK must be set; Ray Train sees to both.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        config: dict[str, Any],
        momentum: float | None = None,
        ema_decay: float = 0.0,
        compiler: str | None = None,
    ) -> None:
        on_gpu = get_accelerator().device_name() != "cpu"
        if not on_gpu:
            _skip_compiled_operators()
        fused = on_gpu and "offload_optimizer" not in config["zero_optimization"]
        # Learning rate 0 until the loop sets one: nothing may move before the schedule says so.
        optimizer: torch.optim.Optimizer
        if momentum is None:
            optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=fused)
        else:
            optimizer = torch.optim.SGD(groups, lr=0.0, momentum=momentum, fused=fused)
        self._state_keys = ADAMW_STATE if momentum is None else SGD_STATE
        self.engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
        self._trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        precision = next((name for name in ("bf16", "fp16") if config[name]["enabled"]), "float32")
        self._stage = config["zero_optimization"]["stage"]
        self._sharded = self._stage > 0 or precision != "float32"
        self.dtype = DTYPES[precision]
        self.device: torch.device = self.engine.device
        self._create_moments()
        self._norm: Tensor | None = None
        self._ema_decay = ema_decay
        self._average = [master.detach().clone() for master in self._masters] if ema_decay else []
        if compiler is not None:
            self.engine.compile(backend=compiler)

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Backward pass of one micro batch; the last one of an accumulation window also updates the weights.

        DeepSpeed divides by the number of accumulated passes, the loss must not be divided before.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        self.engine.backward(loss)
        updates = self.engine.is_gradient_accumulation_boundary()
        if updates and not self._sharded:  # where DeepSpeed clips, but forgets the norm
            self._norm = torch.nn.utils.get_total_norm([p.grad for p in self._trainable.values() if p.grad is not None])
        self.engine.step()
        if updates and self._average:
            # Of this worker's part of the float32 weights; nothing has to be sent.
            torch._foreach_lerp_(self._average, [master.detach() for master in self._masters], 1 - self._ema_decay)

    @property
    def grad_norm(self) -> float | None:
        """L2 norm of the last update's gradient, before clipping; None before the first update."""
        norm = self.engine.get_global_grad_norm() if self._sharded else self._norm
        return None if norm is None else float(norm)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the network has the averaged weights, if there is an average. A collective."""
        if not self._average:
            yield
            return
        self._swap_average()
        self._refresh_copies()
        try:
            yield
        finally:
            self._swap_average()
            self._refresh_copies()

    def state(self, *, keep: bool = True) -> dict[str, dict[str, Tensor]]:
        """What training changes, by parameter name and independent of ZeRO stage and number of workers.

        Keys: "weights" and what the optimiser keeps ("exp_avg" and "exp_avg_sq", or "momentum_buffer") -> name ->
        float32 tensor on the CPU; with a moving average, "weights" are the averaged ones and "trained" the others; and
        "steps" -> the number of updates, AdamW's own count of them, and with fp16 the loss scaler's state. A
        collective: every worker calls it. Workers with `keep` False only take part in it, and get nothing.
        """
        state: dict[str, dict[str, Tensor]] = {}
        if self._average:
            self._swap_average()
            state["weights"] = self._gathered(None, keep)
            self._swap_average()
        state["trained" if self._average else "weights"] = self._gathered(None, keep)
        for key in self._state_keys:
            state[key] = self._gathered(key, keep)
        return {**state, "steps": self._counters()} if keep else {}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `state` returned. A collective: every worker calls it."""
        self._load_counters(state["steps"])
        if self._average:
            self._scatter(None, state["weights"])
            self._swap_average()
        self._scatter(None, state["trained" if self._average else "weights"])
        for key in self._state_keys:
            self._scatter(key, state[key])
        self._refresh_copies()

    def close(self) -> None:
        """Let go of the process group, so that a later run in this process can start."""
        self.engine.destroy()
        deepspeed.comm.destroy_process_group()

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.engine.optimizer.optimizer if self._sharded else self.engine.optimizer

    @property
    def _masters(self) -> list[Tensor]:
        """What the optimiser updates: this worker's part of the float32 weights."""
        if self._stage == 3:  # whose parameter groups are empty between updates
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _gathered(self, key: str | None, keep: bool) -> dict[str, Tensor]:
        """The float32 weights (key None) or what the optimiser keeps under `key`, by name, whole, on the CPU."""
        found = {}
        for name, parameter in self._trainable.items():
            if not self._sharded:
                value = parameter.detach() if key is None else self._optimizer.state[parameter][key]
            elif key is None:
                value = safe_get_full_fp32_param(parameter)
            else:
                value = safe_get_full_optimizer_state(parameter, key)
            if keep:
                found[name] = value.float().cpu().clone()
        return found

    def _scatter(self, key: str | None, values: Mapping[str, Tensor]) -> None:
        """Put back what `_gathered` returned; the copies in training precision stay as they are."""
        for name, parameter in self._trainable.items():
            value = values[name].to(self.device)
            if self._stage == 3:
                part = self._part(parameter, value)
                if key is None:
                    safe_set_local_fp32_param(parameter, part)
                else:
                    safe_set_local_optimizer_state(parameter, part, key)
            elif self._sharded and key is None:
                safe_set_full_fp32_param(parameter, value)
            elif self._sharded:
                safe_set_full_optimizer_state(parameter, value, key)
            elif key is None:
                parameter.data.copy_(value)
            else:
                self._optimizer.state[parameter][key].copy_(value)

    def _refresh_copies(self) -> None:
        """Make the copies in training precision anew from the float32 weights, which DeepSpeed does after an update."""
        parameter: Any  # DeepSpeed adds attributes
        for parameter in self._trainable.values():
            if self._sharded:
                value = safe_get_full_fp32_param(parameter)
                if self._stage == 3:
                    parameter.ds_tensor.data.copy_(self._part(parameter, value))
                if parameter.shape == value.shape:  # ZeRO 3 keeps small ones whole beside their parts
                    parameter.data.copy_(value)

    def _part(self, parameter: Any, value: Tensor) -> Tensor:
        """This worker's part of a parameter under ZeRO 3: all parts are equally long, the last one is padded."""
        # DeepSpeed's own functions for whole values do not pad, and fail where the workers do not divide the size.
        size, rank = parameter.ds_tensor.numel(), self.engine.optimizer._get_param_partition_rank(parameter)
        flat = value.flatten()[rank * size : (rank + 1) * size]
        return nn.functional.pad(flat, (0, size - flat.numel()))

    def _swap_average(self) -> None:
        for master, average in zip(self._masters, self._average, strict=True):
            held = master.detach().clone()
            master.data.copy_(average)
            average.copy_(held)

    def _counters(self) -> dict[str, Tensor]:
        counters = {"steps": torch.tensor(float(self.engine.global_steps))}
        kept = self._optimizer.state[self._masters[0]]
        if "step" in kept:  # with fp16 some updates are skipped
            counters["updates"] = kept["step"].detach().float().cpu().clone()
        if self._scaler is not None:
            counters |= {name: torch.tensor(float(getattr(self._scaler, name))) for name in SCALER_STATE}
        return counters

    def _load_counters(self, counters: Mapping[str, Tensor]) -> None:
        self.engine.global_steps = int(counters["steps"])
        for kept in self._optimizer.state.values():
            if "step" in kept:
                kept["step"].fill_(counters.get("updates", counters["steps"]))
        if self._scaler is not None:
            for name in SCALER_STATE:
                setattr(self._scaler, name, type(getattr(self._scaler, name))(counters[name].item()))

    @property
    def _scaler(self) -> Any:
        return self.engine.optimizer.loss_scaler if self.dtype == torch.float16 else None

    def _create_moments(self) -> None:
        """Make the optimiser's state before its first update, equal to what it would make itself.

        ZeRO 1 and 2 link the state to the parameters' names right after the first *group* was updated, and the other
        groups would stay without (DeepSpeed 0.19.8); with the state there beforehand all are linked. ZeRO 3 has made
        the state by an update that did nothing but count.
        """
        for master in self._masters:
            state = {key: torch.zeros_like(master) for key in self._state_keys}
            if self._state_keys == ADAMW_STATE:
                fused = self._optimizer.defaults["fused"]
                state["step"] = torch.zeros((), device=master.device if fused else "cpu")
            self._optimizer.state[master] = state
        if self._sharded and self._stage < 3:
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()


def _skip_compiled_operators() -> None:
    """Keep DeepSpeed from compiling its shared-memory reduction on CPUs.

    It needs a compiler and ninja and two minutes of the first run, and there is no fallback when they are missing.
    Gloo does the same work; with no operator listed as compatible DeepSpeed takes it.
    """
    deepspeed.ops.__dict__["__compatible_ops__"] = {}
