"""A finished model as teacher, and its student: the same network with LoRA layers, or all of it anew."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import model_defaults, weights_sha256
from instancediffusion.errors import SettingsError
from instancediffusion.sampling import Branch, ClassifierFreeGuidance, Moment, Scheduler, build_scheduler, sample
from instancediffusion.training.base_model import base_latents, schedule_of
from instancediffusion.training.config import DiffusionConfig, DistillationConfig
from instancediffusion.training.networks import Parts
from instancediffusion.training.objective import Objective
from instancediffusion.training.pretrained import load_text
from instancediffusion.training.preview import SceneNetwork

LORA = "student"
"""Name of the LoRA layers among those of the UNet."""
STUDENT_SCHEDULER = "ddim_trailing"
"""What the student is sampled with. Its steps are linear in the prediction, and draw no noise."""


class LoraLayers(nn.Module):
    """The LoRA layers of a UNet by themselves: what is trained, averaged and kept of it.

    Args:
        unet: the LoRA layers are in it.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        ends = (f"lora_A.{LORA}", f"lora_B.{LORA}")
        self.layers = nn.ModuleDict(
            {name.replace(".", "-"): layer for name, layer in unet.named_modules() if name.endswith(ends)}
        )

    def tensors(self) -> dict[str, Tensor]:
        """The weights by the names that PEFT and diffusers give them in files."""
        named = {name.replace("-", ".").removesuffix(f".{LORA}"): layer for name, layer in self.layers.items()}
        return {f"unet.{name}.weight": layer.get_parameter("weight").detach() for name, layer in named.items()}

    def load(self, path: Path) -> None:
        """Take the weights of a file.

        Raises:
            SettingsError: it cannot be read, or its layers are others.
        """
        try:
            own, found = self.tensors(), load_file(path)
        except (OSError, SafetensorError) as error:
            raise SettingsError(
                f"distillation.init = {str(path)!r}: no LoRA file that can be read ({error})"
            ) from error
        differ = sorted(name for name in own.keys() | found.keys() if _shape(own, name) != _shape(found, name))
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise SettingsError(
                f"distillation.init = {str(path)!r}: it has other layers than distillation.rank and "
                f"distillation.layers ask for: {', '.join(differ[:3])}{more}"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(found[name])


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


class FewSteps:
    """Teacher and student, and how each of them samples.

    Args:
        config: how many steps, of what.
        folder: of the finished model.

    Attributes:
        teacher: nothing of it requires gradients.
        student: with LoRA, the teacher's own networks; see `teaching`.
        lora: the student's LoRA layers, if it has any.
        trained: what learns, by name.
        guidance: the teacher's guidance scale.
        timesteps: (n,) those of the student's steps, falling.
        scales: by how much a step's result changes with the prediction, which it is linear in, n numbers above 0.

    Raises:
        SettingsError: the model is of a kind that is not known here, or a setting does not fit it.
    """

    def __init__(self, config: DistillationConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.teacher = finished_parts(folder)
        if config.rank:
            self.student = self.teacher
            self.lora: LoraLayers | None = _with_lora(self.student.unet, config)
            self.trained: Mapping[str, nn.Module] = {"lora": self.lora}
        else:
            self.lora = None
            self.student = finished_parts(folder)
            self.trained = {"unet": self.student.unet, "adapter": self.student.adapter}
            for module in self.trained.values():
                module.train().requires_grad_(True)
        self.guidance = config.guidance_scale or model_defaults(folder).guidance_scale
        self._own = own_scheduler(folder)
        scheduler = self._student_scheduler()
        self.timesteps = scheduler.timesteps
        zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        self.scales = [abs(float(scheduler.step(one, t, zero).prev_sample)) for t in self.timesteps]

    def _student_scheduler(self) -> Scheduler:
        scheduler = build_scheduler(STUDENT_SCHEDULER, self._own)
        scheduler.set_timesteps(self.config.steps)
        return scheduler

    @contextmanager
    def teaching(self) -> Iterator[Parts]:
        """The teacher's networks; the student's LoRA layers are off meanwhile."""
        if not self.config.rank:
            yield self.teacher
            return
        self.teacher.unet.disable_adapters()
        try:
            yield self.teacher
        finally:
            self.teacher.unet.enable_adapters()

    def guided(self, network: SceneNetwork, noise: Tensor) -> Tensor:
        """Sample with guidance, `substeps` steps for each of the student's.

        Args:
            network: the teacher's, conditioned on B scenes.
            noise: (B, C, h, w) standard normal.

        Returns:
            (n, B, C, h, w) the latents after each of the student's n steps.
        """
        every, passed = self.config.substeps, []

        def keep(moment: Moment) -> None:
            if moment.call.ends_step and (moment.call.step + 1) % every == 0:
                passed.append(moment.latents.float())

        scheduler = build_scheduler("dpm++_2m", _trailing(self._own))
        scheduler.set_timesteps(self.config.steps * every)
        branches = [Branch(image) for image in range(len(noise))]
        denoiser = ClassifierFreeGuidance(network, branches, self.guidance, max_rows=2 * len(noise))
        sample(denoiser, scheduler, noise, callback=keep)
        return torch.stack(passed)

    def walk(self, network: SceneNetwork, noise: Tensor) -> Iterator[Tensor]:
        """Sample without guidance.

        Args:
            network: the student's, conditioned on B scenes.
            noise: (B, C, h, w) standard normal.

        Yields:
            (B, C, h, w) the latents after each step; gradients go through that step only.
        """
        scheduler = self._student_scheduler()
        denoise = network.bind([Branch(image) for image in range(len(noise))])
        x = noise
        for step, t in enumerate(self.timesteps):
            moved = scheduler.step(denoise(x, t.to(x.device), step).float(), t, x).prev_sample
            yield moved
            x = moved.detach()


def finished_parts(folder: Path) -> Parts:
    """Load the networks of a finished model, in float32; nothing of them requires gradients.

    Raises:
        SettingsError: it is of another family.
    """
    if (folder / "text_encoder_2").is_dir() or not (folder / "unet").is_dir():
        raise SettingsError(
            f"distillation.teacher: {folder} is not of the family of Stable Diffusion 1.x (a UNet and one text "
            "encoder); others cannot be distilled here"
        )
    latents = base_latents(folder)
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(folder / "unet")
    adapter: InstanceAdapter = InstanceAdapter.from_pretrained(folder / "adapter")
    text = load_text(folder)
    for module in (unet, adapter, text.model):
        module.float().eval().requires_grad_(False)
    unet.to(memory_format=torch.channels_last)
    adapter.graft(unet)
    objective = Objective(DiffusionConfig(), schedule_of(folder))
    return Parts(text, unet, adapter, objective, latents, {}, {"teacher": weights_sha256(folder)})


def own_scheduler(folder: Path) -> Scheduler:
    """A model's own scheduler."""
    name = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))["_class_name"]
    return getattr(diffusers, name).from_pretrained(folder / "scheduler")


def _trailing(scheduler: Scheduler) -> Scheduler:
    """The same with trailing steps, which begin at the noisiest level and are those of the student."""
    return type(scheduler).from_config(scheduler.config, timestep_spacing="trailing")


def _with_lora(unet: UNet2DConditionModel, config: DistillationConfig) -> LoraLayers:
    """Give a UNet LoRA layers that change nothing yet."""
    if importlib.util.find_spec("peft") is None:
        raise SettingsError("distillation.rank: LoRA layers need PEFT; pip install 'instancediffusion[adapters]'")
    from peft import LoraConfig

    torch.manual_seed(config.optimiser.seed)
    try:
        # alpha = rank: a file without alpha, which is what every reader takes it for.
        unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(config.layers)), LORA)
    except ValueError as error:
        raise SettingsError(f"distillation.layers = {list(config.layers)}: the UNet has none of these names") from error
    lora = LoraLayers(unet)
    if config.init:
        lora.load(Path(config.init).expanduser())
    return lora


def write_lora(lora: LoraLayers, path: Path) -> None:
    """Write LoRA layers as a file in float16 that `load_lora_weights` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(torch.float16).contiguous() for name, value in lora.tensors().items()}
    save_file(tensors, path, {"format": "pt"})
