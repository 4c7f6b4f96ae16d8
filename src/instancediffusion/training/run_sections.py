"""The sections of a recipe that say how it is learned, checked as far as one section can check itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from instancediffusion.errors import SettingsError


@dataclass(frozen=True)
class OptimiserConfig:
    """One run of the optimiser.

    Attributes:
        steps: planned steps; the learning rate reaches its end there.
        batch_size: pictures per step.
        learning_rate: highest rate, reached after `warmup` steps, decayed by half a cosine to `final_rate` times that.
        algorithm: "adamw", or "muon": the matrices of linear layers by Muon, everything else by AdamW; or
            "muon-conv": kernels of convolutions by Muon, too.
        weight_decay: for weights with two or more axes only.
        betas: AdamW's.
        grad_clip: largest norm of the gradient of all weights together.
        ema_decay: of the EMA weights; see `Ema`.
        seed: of the initial weights and of every random draw.
        precision: "bf16" (autocast; weights stay float32) or "fp32".
        checkpoint_every: steps between checkpoints.
        checkpoint_minutes: besides, minutes after which there is one; 0 = never. For machines that are rented by the
            minute, where it is unknown how many steps one takes.
        log_every: steps between lines of the log.
        preview_every: steps between pictures; 0 = never.
        score_every: steps between scores, where the caller has a scorer; 0 = never.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-3
    algorithm: str = "adamw"
    warmup: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.99)
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: str = "bf16"
    checkpoint_every: int = 250
    checkpoint_minutes: float = 0.0
    log_every: int = 25
    preview_every: int = 0
    score_every: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        one_of("precision", self.precision, ("bf16", "fp32"))
        one_of("algorithm", self.algorithm, ("adamw", "muon", "muon-conv"))
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} = {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class ResolutionStage:
    """A part of the diffusion run at one size of picture.

    Attributes:
        from_step: its first step, counted from the start of the run.
        sample_size: side of the latent grid; the pictures are made smaller to fit.
        batch_size: pictures per step; 0 = the optimiser's.
        learning_rate: highest rate; 0 = the optimiser's.
    """

    from_step: int = 0
    sample_size: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.sample_size < 1:
            raise SettingsError(f"sample_size = {self.sample_size}: expected the side of a latent grid, at least 1")
        for name in ("from_step", "batch_size", "learning_rate"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} = {getattr(self, name)}: expected at least 0")


@dataclass(frozen=True)
class DiffusionConfig:
    """The objective and the run of text model, UNet and adapter.

    Attributes:
        base: a pipeline's folder, or the name of a card, whose networks the adapter learns for; "" = no base, all
            networks start from random weights. With a base the noise schedule and what is predicted are the base's.
        train: "all", or with a base "adapter": nothing else learns.
        beta_start, beta_end: ends of the "scaled_linear" schedule of 1,000 steps; not read with a base.
        timesteps: "logit-normal" or "uniform": how the timesteps are drawn.
        logit_mean, logit_std: t = 1000 sigmoid(n), n normal: most steps on the middle of the schedule.
        min_snr_gamma: weight of the loss min(snr, gamma) / (snr + 1) instead of 1 (Hang et al. 2023, for
            v-prediction; min(snr, gamma) / snr for noise prediction); 0 = off.
        noise_draws: how many noises and steps each drawn scene is used with in one step; texts and grounding are then
            computed once for all of them. A step sees `batch_size / noise_draws` scenes.
        drop_prompt: probability that a picture's prompt is emptied.
        drop_grounding: probability that a picture has no instances, drawn independently.
        drop_both: probability that both are taken away together, besides.
        attention_gate, dense_gate: initial tanh gates of the fusers; zero gates (as published) would leave the
            instances without effect for the first thousands of steps of a model that has to learn everything. Not read
            with a base, which is to stay undisturbed: the gates then start at zero.
        train_text: whether the text model learns on. At the rate of the rest it forgot most of what distinguishes
            captions.
        instance_mask: rule of the attention between visual tokens and instances, from the first step.
        hard_mask: fraction of the steps in which the instance mask is "grounding", whatever `instance_mask`: no
            visibility then says which instance is in front, so the order has to be learned from the order embedding of
            the tokens.
        object_weight: by how much more the error counts at a latent pixel that objects cover than on bare background,
            which fills most of a picture and is learned first; 0 = all alike.
        cache_latents: whether latents are made once, by the stage "latents", and kept; else the pictures of each step
            are encoded in that step, which costs time and spares the disk.
        gradient_checkpointing: compute the activations of the UNet's blocks again in the backward pass instead of
            keeping them: less memory, more time, the same gradients.
        compile: on a GPU, compile the UNet with its adapter (`torch.compile`); on a CPU there is nothing to gain.
        stages: sizes to learn at, one after another; empty = the full size throughout.
        optimiser: the run.
    """

    base: str = ""
    train: str = "all"
    beta_start: float = 0.00085
    beta_end: float = 0.02
    timesteps: str = "logit-normal"
    logit_mean: float = 0.2
    logit_std: float = 1.2
    min_snr_gamma: float = 0.0
    noise_draws: int = 1
    drop_prompt: float = 0.10
    drop_grounding: float = 0.10
    drop_both: float = 0.05
    attention_gate: float = 1.0
    dense_gate: float = 0.3
    train_text: bool = False
    instance_mask: str = "grounding"
    hard_mask: float = 0.0
    object_weight: float = 0.0
    cache_latents: bool = True
    gradient_checkpointing: bool = False
    compile: bool = False
    stages: tuple[ResolutionStage, ...] = ()
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        one_of("timesteps", self.timesteps, ("logit-normal", "uniform"))
        one_of("train", self.train, ("all", "adapter"))
        if (self.train == "adapter") != bool(self.base):
            raise SettingsError(
                f"base = {self.base!r}, train = {self.train!r}: give both a base and train = 'adapter', or neither"
            )
        if self.object_weight < 0:
            raise SettingsError(f"object_weight = {self.object_weight}: expected at least 0")
        starts = [stage.from_step for stage in self.stages]
        if starts and (starts[0] != 0 or sorted(set(starts)) != starts):
            raise SettingsError(f"stages: from_step = {starts}: expected rising numbers, the first of them 0")
        for size in (self.optimiser.batch_size, *(stage.batch_size for stage in self.stages)):
            if self.noise_draws < 1 or size % self.noise_draws:
                raise SettingsError(f"noise_draws = {self.noise_draws}: expected a divisor of batch_size = {size}")


UNET_LAYERS = (
    *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0"),
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "time_emb_proj"),
)
"""Layers of a stock UNet that get LoRA layers. Not those that read texts: their results are computed once a picture."""


@dataclass(frozen=True)
class DistillationConfig:
    """How a finished model is distilled to few steps without guidance.

    Attributes:
        teacher: the name of a card, or a model's folder; "" = nothing is distilled.
        steps: n, of the student.
        substeps: k, steps of the teacher for each of the student's.
        guidance_scale: of the teacher; 0 = its own.
        rank: of the LoRA layers; 0 = none, UNet and adapter learn as a whole.
        layers: how the names of the UNet's layers that get LoRA layers end.
        init: LoRA file of the same rank and layers to go on from, such as one of the teacher's earlier weights.
        drop_prompt, drop_grounding: probability that a scene's prompt is emptied, that its instances are taken away.
        pool: batches that are gone through one after another, `uses` times.
        uses: how often a batch is learned from. Teaching takes as long as learning, and is done once a batch.
        optimiser: the run; `batch_size` counts scenes, of each of which all n steps are learned.
    """

    teacher: str = ""
    steps: int = 4
    substeps: int = 2
    guidance_scale: float = 0.0
    rank: int = 8
    layers: tuple[str, ...] = UNET_LAYERS
    init: str = ""
    drop_prompt: float = 0.05
    drop_grounding: float = 0.05
    pool: int = 50
    uses: int = 2
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        whole = (("steps", 1), ("substeps", 1), ("rank", 0), ("pool", 1), ("uses", 1))
        for name, low in (*whole, ("guidance_scale", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"{name} = {getattr(self, name)}: expected at least {low}")
        for name in ("drop_prompt", "drop_grounding"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} = {getattr(self, name)}: expected a probability, 0..1")
        if self.init and not self.rank:
            raise SettingsError("init: there are no LoRA layers with rank = 0; name the model as the teacher instead")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `SettingsError` if a setting has none of its known values."""
    if value not in known:
        raise SettingsError(f"{name} = {value!r}: expected {' or '.join(repr(k) for k in known)}")
