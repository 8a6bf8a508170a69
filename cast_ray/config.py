"""Which settings a run has: typed, documented, checked when they are built.

A recipe (`cast_ray.recipes`) returns a complete `RunConfig`; the command line changes single fields of it. Every
contradiction that can be seen without data or a cluster is a `UserError` here, before anything is started.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import dacite

from cast_ray.checks import require, require_positive, require_share
from cast_ray.data.decode import Decoder
from cast_ray.errors import UserError
from cast_ray.models.named import spec_of, trains_experts
from cast_ray.models.options import ModelOptions

__all__ = [
    "AudioConfig",
    "AugmentConfig",
    "BatchConfig",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "ScaleConfig",
    "TestConfig",
    "WeightsConfig",
]

RANDOM = "random"
"""The value of a weights field that asks for a randomly initialised expert."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and its input size."""

    name: str = "cast_base_patch16_224"
    """Name of the model, as timm.create_model knows it."""
    num_frames: int | None = None
    """Frames per view; frame-wise experts of CAST see every second one. None: the model's own number."""
    image_size: int | None = None
    """Height and width of a view, in pixels. None: the model's own size."""
    drop_path: float = 0.0
    """Stochastic-depth rate of the last block; it grows linearly with depth."""
    train_experts: bool | None = None
    """Train the experts too, instead of only adapters, exchanges, last norms and heads. None: if none has adapters."""
    checkpoint_activations: bool = False
    """Compute the inside of each block again in the backward pass: far less memory, about a third more time."""
    options: ModelOptions = field(default_factory=ModelOptions)
    """Departures from the named model, such as the papers' ablations."""

    def __post_init__(self) -> None:
        require(0 <= self.drop_path < 1, f"model.drop-path is {self.drop_path}; give 0 <= rate < 1")
        for name, value in (("image-size", self.image_size), ("num-frames", self.num_frames)):
            if value is not None:
                require_positive(f"model.{name}", value)


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Where the experts come from: a checkpoint file, a name that `cast-ray weights list` shows, or 'random'."""

    spatial: str | None = None
    """Weights of the spatial expert, for example ViT-B-16/openai or /shared/clip_vit_b16.safetensors."""
    temporal: str | None = None
    """Weights of the temporal expert, for example MCG-NJU/videomae-base or /shared/videomae_ssv2_b16.pth."""
    audio: str | None = None
    """Weights of the audio expert, for example MIT/ast-finetuned-audioset-10-10-0.4593."""
    network: str | None = None
    """A whole network to start from: a released CAST checkpoint, or one of our own; instead of the experts."""
    new_head: bool = False
    """With `network`: start with new classifiers, for other classes than the network was trained for."""
    folder: str | None = None
    """Where weights with names lie; None: the folder of CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""
    temporal_norm: Literal["load", "identity"] = "load"
    """Final norm of a VideoMAE expert: the file's, or an identity as in the CAST authors' code."""
    copy_head: bool = False
    """Copy the classifier of a fine-tuned VideoMAE in the temporal role where it fits, as CAST's authors do."""

    def __post_init__(self) -> None:
        if self.network is not None:
            require(
                not self.sources(),
                f"weights.network '{self.network}' and weights of single experts {self.sources()} are given; "
                "leave one of them away",
            )

    def given(self) -> dict[str, str]:
        """What is asked for, 'random' included, by expert."""
        values = {"spatial": self.spatial, "temporal": self.temporal, "audio": self.audio}
        return {expert: value for expert, value in values.items() if value is not None}

    def sources(self) -> dict[str, str]:
        """The files or names to load, by expert."""
        return {expert: value for expert, value in self.given().items() if value != RANDOM}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How clips are sampled and read."""

    sampling: Literal["uniform", "dense"] = "uniform"
    """uniform: one random frame in each of equal segments; dense: a window of frames at a fixed stride."""
    stride: int = 4
    """Distance of sampled frames in dense sampling, in frames."""
    max_unreadable: float = 0.01
    """Share of an epoch's clips that may be unreadable before the run stops."""
    clips_per_task: int = 32
    """Clips that one decode task handles, at least one micro batch."""
    cpus_per_decode: float = 1.0
    """CPU cores that Ray sets aside for one decode task."""
    decoder: Decoder | None = None
    """What decodes encoded video; torchcodec needs FFmpeg's libraries on every node. None: PyAV for short-GOP shards,
    which it reads in half of the time, else decord."""
    decode_time_limit_s: float = 60.0
    """Seconds after which a clip that is still being decoded is given up as unreadable."""
    tasks_per_decoder: int = 1000
    """Decode tasks after which a worker process is replaced by a new one: decoders lose memory."""

    def __post_init__(self) -> None:
        require_share("data.max-unreadable", self.max_unreadable)
        require_positive("data.stride", self.stride)
        require_positive("data.clips-per-task", self.clips_per_task)
        require_positive("data.cpus-per-decode", self.cpus_per_decode)
        require_positive("data.decode-time-limit-s", self.decode_time_limit_s)
        require_positive("data.tasks-per-decoder", self.tasks_per_decoder)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training clips."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the frame's area that the random crop covers."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width / height of the random crop before resizing."""
    flip: float = 0.5
    """Probability of a horizontal flip. Keep 0 where left and right are part of the label."""
    rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    """RandAugment in timm's notation, one draw per clip; None switches it off."""
    repeats: int = 1
    """Times that each clip comes per epoch, one after the other, each time with other random frames and changes."""
    erase: float = 0.0
    """Probability that a box is erased from a clip, the same one from all its frames."""
    erase_mode: Literal["pixel", "const"] = "pixel"
    """What fills an erased box: noise, or the mean colour."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the frame's area that is erased."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution that mixup draws from; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Likewise for CutMix, which pastes a box of another clip instead of blending the two; 0 switches it off."""
    cutmix_switch: float = 0.5
    """Probability of CutMix instead of mixup where both are on."""
    mixup_probability: float = 0.9
    """Probability that a micro batch is mixed, by mixup or CutMix."""

    def __post_init__(self) -> None:
        low, high = self.crop_area
        require(0 < low <= high <= 1, f"augment.crop-area is {low} {high}; give 0 < smallest <= largest <= 1")
        low, high = self.crop_ratio
        require(0 < low <= high, f"augment.crop-ratio is {low} {high}; give 0 < smallest <= largest")
        require_share("augment.flip", self.flip)
        require_share("augment.mixup-probability", self.mixup_probability)
        require_positive("augment.repeats", self.repeats)
        require_share("augment.erase", self.erase)
        low, high = self.erase_area
        require(0 < low <= high <= 1, f"augment.erase-area is {low} {high}; give 0 < smallest <= largest <= 1")
        require_share("augment.cutmix-switch", self.cutmix_switch)
        for name, alpha in (("mixup-alpha", self.mixup_alpha), ("cutmix-alpha", self.cutmix_alpha)):
            require(alpha >= 0, f"augment.{name} is {alpha}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Random changes of training clips' spectrograms; nothing of it matters to a model without an audio expert."""

    time_masks: int = 2
    """Stripes of time that are blanked out in every spectrogram; 0 switches them off."""
    time_mask_columns: int = 70
    """Longest stripe of time, in columns of 10 ms."""
    frequency_masks: int = 2
    """Stripes of frequency that are blanked out in every spectrogram; 0 switches them off."""
    frequency_mask_bins: int = 20
    """Widest stripe of frequency, in mel bins."""
    mask_share: float = 0.2
    """Largest share of a clip's columns, or of the bins, that one stripe may cover; matters to short clips."""
    mixing: Literal["linear", "cutmix", "none"] = "linear"
    """How sound is mixed where clips are: blended, a box of the other spectrogram pasted, or not at all."""

    def __post_init__(self) -> None:
        for name in ("time_masks", "time_mask_columns", "frequency_masks", "frequency_mask_bins"):
            value = getattr(self, name)
            require(value >= 0, f"audio.{name.replace('_', '-')} is {value}; give 0 or more")
        require_share("audio.mask-share", self.mask_share)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How many clips make one optimiser update."""

    global_batch: int = 384
    """Clips per update: micro batch x accumulation x workers."""
    micro_batch: int = 6
    """Clips per worker and forward pass."""

    def __post_init__(self) -> None:
        require_positive("batch.global-batch", self.global_batch)
        require_positive("batch.micro-batch", self.micro_batch)

    def accumulation(self, num_workers: int) -> int:
        """Forward passes per update of each worker; `UserError` unless the batches divide evenly."""
        per_pass = self.micro_batch * num_workers
        if self.global_batch % per_pass:
            lower = self.global_batch // per_pass * per_pass
            near = " or ".join(str(size) for size in (lower, lower + per_pass) if size)
            raise UserError(
                f"batch.global-batch {self.global_batch} does not divide by batch.micro-batch {self.micro_batch} x "
                f"{num_workers} workers = {per_pass}; use --batch.global-batch {near}, or another micro batch"
            )
        return self.global_batch // per_pass


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its schedule and its regularisation."""

    epochs: int = 50
    """Passes over the training split."""
    base_lr: float = 1e-3
    """Learning rate for 256 clips per update; the peak is base_lr x global batch / 256."""
    min_lr: float = 1e-6
    """Last learning rate of the cosine for 256 clips per update, scaled in the same way."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """After the warm-up: fall along a cosine, or stay and drop at `drop_epochs`."""
    drop_epochs: tuple[int, ...] = ()
    """With schedule steps: epochs that must be over for the next drop."""
    drop_factor: float = 0.1
    """With schedule steps: factor on the learning rate at every drop."""
    kind: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with momentum."""
    layer_decay: float = 0.75
    """Factor on the learning rate per block, counted from the last block down; 1 switches it off."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; biases, norms and positions have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    momentum: float = 0.9
    """Decay rate of the momentum of sgd."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes."""
    clip_grad: float = 0.0
    """Largest L2 norm of the gradient; 0 switches clipping off."""
    ema_decay: float = 0.0
    """Decay rate per update of a moving average of the weights, for example 0.9999, which is then what is validated,
    tested and exported; 0 keeps none."""
    on_bad_loss: Literal["stop", "skip"] = "stop"
    """What to do when a loss is not finite: stop the run, or leave the micro batch out and go on."""

    def __post_init__(self) -> None:
        require_positive("optim.epochs", self.epochs)
        require_positive("optim.base-lr", self.base_lr)
        require(
            0 <= self.min_lr <= self.base_lr, f"optim.min-lr {self.min_lr} is not between 0 and base-lr {self.base_lr}"
        )
        require(
            0 <= self.warmup_epochs <= self.epochs,
            f"optim.warmup-epochs {self.warmup_epochs} is more than optim.epochs {self.epochs}; lower it",
        )
        require(0 < self.layer_decay <= 1, f"optim.layer-decay is {self.layer_decay}; give 0 < decay <= 1")
        require(all(0 <= beta < 1 for beta in self.betas), f"optim.betas are {self.betas}; give two numbers in [0, 1)")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; give 0 <= momentum < 1")
        require(0 < self.drop_factor < 1, f"optim.drop-factor is {self.drop_factor}; give 0 < factor < 1")
        drops = self.drop_epochs
        require(
            all(before < after for before, after in itertools.pairwise((0, *drops))),
            f"optim.drop-epochs are {drops}; give growing numbers from 1",
        )
        require(
            self.schedule != "steps" or bool(drops),
            "optim.schedule is steps, but there are no steps; give --optim.drop-epochs, or --optim.schedule cosine",
        )
        require_share("optim.label-smoothing", self.label_smoothing)
        require(self.weight_decay >= 0, f"optim.weight-decay is {self.weight_decay}; give 0 or more")
        require(self.clip_grad >= 0, f"optim.clip-grad is {self.clip_grad}; give 0 or more")
        require(0 <= self.ema_decay < 1, f"optim.ema-decay is {self.ema_decay}; give 0 <= decay < 1")

    def peak_lr(self, global_batch: int) -> float:
        return self.base_lr * global_batch / 256

    def last_lr(self, global_batch: int) -> float:
        return self.min_lr * global_batch / 256


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How many workers run, on what."""

    num_workers: int = 16
    """Training processes; one per GPU."""
    use_gpu: bool = True
    """Train on GPUs; False means CPU cores."""
    cpus_per_worker: float = 4.0
    """CPU cores that Ray sets aside for one training worker; leave the others to the decoders."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    """Number format of the forward and backward pass; fp16 has a dynamic loss scale, as in the papers. Master weights
    are float32 in any case."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: 1 shards the optimiser state over the workers, 2 the gradients too, 3 the weights too."""
    offload_optimizer: bool = False
    """Keep the optimiser's state in the machine's memory and update the weights on its CPU: slow, frees GPU memory."""
    compile: bool = False
    """Compile the network with torch.compile: the first update takes minutes, the others less time."""
    max_failures: int = 3
    """Times that lost workers are replaced and the run goes on from its latest checkpoint."""
    start_timeout_s: int = 900
    """Seconds to wait for the cluster to provide the workers."""
    hang_timeout_s: float = 600.0
    """Seconds without a sign of life after which a worker counts as hanging, and all workers start anew from the latest
    checkpoint. Until the first update is done, three times as long."""

    def __post_init__(self) -> None:
        require_positive("scale.num-workers", self.num_workers)
        require_positive("scale.cpus-per-worker", self.cpus_per_worker)
        require_positive("scale.start-timeout-s", self.start_timeout_s)
        require_positive("scale.hang-timeout-s", self.hang_timeout_s)
        require(
            self.precision == "float32" or self.zero_stage > 0,
            f"scale.zero-stage 0 does not go with scale.precision {self.precision}; use --scale.zero-stage 1 or 2, or "
            "--scale.precision float32",
        )
        require(
            not self.offload_optimizer or self.zero_stage > 0,
            "scale.offload-optimizer does not go with scale.zero-stage 0; use --scale.zero-stage 1, 2 or 3",
        )
        require(self.max_failures >= 0, f"scale.max-failures is {self.max_failures}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class TestConfig:
    """Multi-view evaluation after training."""

    __test__ = False  # pytest: not a test class

    temporal_views: int = 2
    """Views along time."""
    spatial_crops: Literal[1, 3] = 3
    """Views along the longer side of the frame: the centre, or left / centre / right."""
    num_workers: int | None = None
    """Model replicas that predict in parallel; None: as many as there were training workers."""
    clips_per_batch: int = 4
    """Clips, with all their views, per forward pass."""

    def __post_init__(self) -> None:
        require_positive("test.temporal-views", self.temporal_views)
        if self.num_workers is not None:
            require_positive("test.num-workers", self.num_workers)
        require_positive("test.clips-per-batch", self.clips_per_batch)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run, apart from the dataset itself."""

    name: str | None = None
    """Name of the run; the same name in the same storage continues it. None makes a new one from the time."""
    storage: str = "~/cast_ray_runs"
    """Folder or URI (s3://, gs://) for shards, checkpoints and reports; all nodes must reach it."""
    seed: int = 0
    """Seed of initialisation, order and augmentation."""
    log_every: int = 10
    """Optimiser updates between two progress lines."""
    validate_every: int = 1
    """Epochs between two validations; a checkpoint is written after each."""
    checkpoint_every: int | None = 200
    """Optimiser updates between two checkpoints; None: only after validation."""
    keep_checkpoints: int = 3
    """Checkpoints to keep: the best ones by validation, and the last."""
    checkpoint_retry_s: float = 600.0
    """Seconds in which a checkpoint that the storage does not take is tried again; training goes on meanwhile."""
    model: ModelConfig = field(default_factory=ModelConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    test: TestConfig = field(default_factory=TestConfig)

    def __post_init__(self) -> None:
        self.batch.accumulation(self.scale.num_workers)
        require_positive("log-every", self.log_every)
        require_positive("validate-every", self.validate_every)
        require_positive("keep-checkpoints", self.keep_checkpoints)
        require_positive("checkpoint-retry-s", self.checkpoint_retry_s)
        if self.checkpoint_every is not None:
            require_positive("checkpoint-every", self.checkpoint_every)
        if self.name is not None:
            require(
                bool(self.name) and "/" not in self.name and not self.name.startswith("."),
                f"name is '{self.name}'; use a plain folder name",
            )

    @property
    def predictors(self) -> int:
        """Model replicas of the evaluation."""
        return self.scale.num_workers if self.test.num_workers is None else self.test.num_workers

    def check_experts(self) -> None:
        """Raise `UserError` if weights are given for an expert that the model does not have, or if frozen experts would
        stay untrained without the user having asked for it."""
        experts = spec_of(self.model).experts
        given = self.weights.given()
        for expert in given:
            require(
                expert in experts,
                f"weights.{expert} is '{given[expert]}', but {self.model.name} has the experts {list(experts)}; "
                f"leave --weights.{expert} away",
            )
        for expert in experts:
            require(
                expert in given or self.weights.network is not None or trains_experts(self.model),
                f"weights.{expert} is not given and the experts are frozen: an untrained expert would stay untrained. "
                f"Give --weights.{expert} FILE, or train it (--model.train-experts True), or say "
                f"--weights.{expert} random for a test of the machinery",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as they are stored beside every checkpoint."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """What `to_dict` returned, as a configuration again."""
        try:
            return dacite.from_dict(cls, values, dacite.Config(cast=[tuple], strict=True))
        except dacite.DaciteError as error:
            raise UserError(
                f"the stored configuration does not fit this version: {error}; use the run's version"
            ) from error
