"""How DeepSpeed trains the network: the only module that imports deepspeed."""

from __future__ import annotations

from collections.abc import Mapping
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
)
from torch import Tensor, nn

__all__ = ["DeepSpeedStrategy", "deepspeed_config"]

MOMENTS = ("exp_avg", "exp_avg_sq")
Precision = Literal["bf16", "float32"]


def deepspeed_config(
    *, precision: Precision, zero_stage: int, micro_batch: int, accumulation: int, clip_grad: float
) -> dict[str, Any]:
    """The complete DeepSpeed configuration of a run.

    The optimiser is ours (`torch.optim.AdamW`), so that no operator has to be compiled and the parameter groups stay as
    they are. Gradients are reduced in float32 even for bf16: 16 workers' sums lose too many digits otherwise. Updates
    are not skipped silently when a gradient is not finite; the loop stops the run at the loss that follows.
    """
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip_grad,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": False},
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": zero_stage},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


class DeepSpeedStrategy:
    """A network, its AdamW and the DeepSpeed engine around both.

    Args:
        network: trainable parameters already chosen by `requires_grad`; moved to the worker's device.
        groups: as `cast_ray.models.groups.parameter_groups` returns them.
        betas: AdamW's decay rates.
        config: as `deepspeed_config` returns it.

    The process group must exist, and LOCAL_RANK must be set; Ray Train sees to both.
    """

    def __init__(
        self, network: nn.Module, groups: list[dict[str, Any]], *, betas: tuple[float, float], config: dict[str, Any]
    ) -> None:
        on_gpu = get_accelerator().device_name() != "cpu"
        if not on_gpu:
            _skip_compiled_operators()
        # Learning rate 0 until the loop sets one: nothing may move before the schedule says so.
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=on_gpu)
        self.engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
        self._trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._sharded = config["zero_optimization"]["stage"] > 0 or config["bf16"]["enabled"]
        self.dtype = torch.bfloat16 if config["bf16"]["enabled"] else torch.float32
        self.device: torch.device = self.engine.device
        self._create_moments()

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Backward pass of one micro batch; the last one of an accumulation window also updates the weights.

        DeepSpeed divides by the number of accumulated passes, the loss must not be divided before.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        self.engine.backward(loss)
        self.engine.step()

    @property
    def grad_norm(self) -> float | None:
        """L2 norm of the last update's gradient, before clipping; None where DeepSpeed does not compute it."""
        norm = self.engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What training changes, by parameter name and independent of ZeRO stage and number of workers.

        Keys: "weights", "exp_avg", "exp_avg_sq" -> name -> float32 tensor on the CPU; and "steps" -> "steps" -> the
        number of updates. A collective: every worker calls it.
        """
        weights = {name: self._weight(p).float().cpu().clone() for name, p in self._trainable.items()}
        moments = {
            key: {name: self._moment(p, key).float().cpu().clone() for name, p in self._trainable.items()}
            for key in MOMENTS
        }
        return {"weights": weights, "steps": {"steps": torch.tensor(float(self.engine.global_steps))}, **moments}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `state` returned. A collective: every worker calls it."""
        steps = state["steps"]["steps"]
        self.engine.global_steps = int(steps)
        for moments in self._adam.state.values():
            moments["step"].fill_(steps)
        for name, parameter in self._trainable.items():
            self._set_weight(parameter, state["weights"][name])
            for key in MOMENTS:
                self._set_moment(parameter, key, state[key][name])

    def close(self) -> None:
        """Let go of the process group, so that a later run in this process can start."""
        self.engine.destroy()
        deepspeed.comm.destroy_process_group()

    def _weight(self, parameter: nn.Parameter) -> Tensor:
        return safe_get_full_fp32_param(parameter) if self._sharded else parameter.detach()

    def _set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        value = value.to(self.device)
        if self._sharded:
            safe_set_full_fp32_param(parameter, value)
        with torch.no_grad():  # the copy in training precision is refreshed by DeepSpeed only after an update
            parameter.copy_(value)

    def _moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        if self._sharded:
            return safe_get_full_optimizer_state(parameter, key)
        return self.engine.optimizer.state[parameter][key]

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        value = value.to(self.device)
        if self._sharded:
            safe_set_full_optimizer_state(parameter, value, key)
        else:
            self.engine.optimizer.state[parameter][key].copy_(value)

    @property
    def _adam(self) -> torch.optim.AdamW:
        return self.engine.optimizer.optimizer if self._sharded else self.engine.optimizer

    def _create_moments(self) -> None:
        """Make AdamW's state before its first update, as AdamW itself would make it.

        ZeRO 1 and 2 link the state to the parameters' names right after the first *group* was updated, and the other
        groups would stay without (DeepSpeed 0.19.8); with the state there beforehand all are linked.
        """
        for group in self._adam.param_groups:
            for parameter in group["params"]:
                zeros = {key: torch.zeros_like(parameter) for key in MOMENTS}
                step_device = parameter.device if group["fused"] else "cpu"
                self._adam.state[parameter] = {"step": torch.zeros((), device=step_device), **zeros}
        if self._sharded:
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()


def _skip_compiled_operators() -> None:
    """Keep DeepSpeed from compiling its shared-memory reduction on CPUs.

    It needs a compiler and ninja and two minutes of the first run, and there is no fallback when they are missing.
    Gloo does the same work; with no operator listed as compatible DeepSpeed takes it.
    """
    deepspeed.ops.__dict__["__compatible_ops__"] = {}
