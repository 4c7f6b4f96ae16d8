"""`InstanceDiffusionPipeline`: scenes in, pictures out."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.ip_adapter import IPAdapterMixin
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.loaders.single_file import FromSingleFileMixin
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import USE_PEFT_BACKEND, is_transformers_available
from PIL import Image
from torch import Tensor

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.backbones import BACKBONES, Backbone, backbone_of
from instancediffusion.errors import FailureWarning, ModelError, PicturesError, SettingsError
from instancediffusion.pipeline.compatibility import check_components, check_inputs, latent_channels
from instancediffusion.pipeline.control import read_control
from instancediffusion.pipeline.decoding import (
    NOT_FINITE,
    OUTPUT_TYPES,
    as_output,
    as_picture,
    decode_latents,
    latent_patch,
    to_images,
)
from instancediffusion.pipeline.edit_methods import EditMethods
from instancediffusion.pipeline.encoding import EncodingMethods
from instancediffusion.pipeline.familiar import Familiar, warn_of_unknown_words
from instancediffusion.pipeline.given import GivenPicture, given_pictures, picture_side
from instancediffusion.pipeline.hub_mixin import HubMixin
from instancediffusion.pipeline.image_prompts import UNetInputs, guidance_embedding, image_prompts
from instancediffusion.pipeline.layered_output import Layer, take_apart
from instancediffusion.pipeline.loading import discard_forsaken_graft, graft_once
from instancediffusion.pipeline.openvino_mixin import OpenVINOMixin
from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.pipeline.references import read_references
from instancediffusion.pipeline.refiner import SDXL_REFINER, check_refiner, load_refiner, refine
from instancediffusion.pipeline.requests import NO_PROMPT, ImageRequest, asked_scenes, image_requests, resolve_seeds
from instancediffusion.pipeline.run import Prompts, Run, check_noise, scheduler_for
from instancediffusion.pipeline.size import picture_size
from instancediffusion.pipeline.steering import CALLBACK_TENSORS
from instancediffusion.pipeline.watch import PreviewCallback, StepCallback, Watch
from instancediffusion.pipeline.xl import check_pooled
from instancediffusion.sampling import is_guided, keep_latents
from instancediffusion.scene import Instance, Scene
from instancediffusion.scene.emphasis import warn_of_foreign_syntax
from instancediffusion.settings import GenerationSettings, check_names

if TYPE_CHECKING or is_transformers_available():
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import (
        CLIPImageProcessor,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        CLIPVisionModelWithProjection,
    )
else:  # hidden from a process that makes pictures of `mini` and ends; diffusers asks what the names mean all the same
    StableDiffusionSafetyChecker = CLIPImageProcessor = CLIPTextModel = CLIPTextModelWithProjection = Any
    CLIPTokenizer = CLIPVisionModelWithProjection = Any


class InstanceDiffusionPipeline(
    HubMixin,
    EncodingMethods,
    EditMethods,
    OpenVINOMixin,
    StableDiffusionMixin,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    IPAdapterMixin,
    FromSingleFileMixin,
):
    """Text-to-image generation from scenes, with an instance adapter on a stock latent diffusion model.

    A Stable Diffusion pipeline of diffusers in all else: it takes the same components and call arguments, and loads
    LoRA files, textual inversions and IP-Adapters the same way.

    Args:
        vae: an `AutoencoderKL`, or an `AutoencoderTiny` (TAESD) in its place.
        text_encoder: a `CLIPTextModel`; it encodes prompts and captions alike.
        tokenizer: its tokenizer.
        unet: a stock `UNet2DConditionModel`. The adapter is grafted on it unless it is already.
        adapter: an `InstanceAdapter` that fits the UNet.
        scheduler: any diffusers scheduler of the noise schedule the UNet was trained with. Its config is made to say
            that samples are not clipped.
        safety_checker: blackens pictures it takes for unsafe; None leaves them alone.
        feature_extractor: prepares pictures for `safety_checker` and `image_encoder`.
        image_encoder: reads the pictures of an IP-Adapter.
        text_encoder_2: the second text encoder of Stable Diffusion XL, a `CLIPTextModelWithProjection`; None in others.
        tokenizer_2: its tokenizer.
        requires_safety_checker: kept for the components of Stable Diffusion pipelines.
        force_zeros_for_empty_prompt: with XL, no negative prompt means zeros in place of its text, not the empty text.
        default_settings: the settings this model is best run with, as `GenerationSettings.to_dict` writes them; fields
            left out take the library's defaults. Kept in the folder's `model_index.json`.
        vocabulary: every word the model was trained on, for models of a small world; texts with other words give a
            warning. None for models that may know any. Kept in `model_index.json`, too.
        familiar: captions of what the model can draw, and how unlike them a caption has to be for a warning, see
            `pipeline.familiar`. None for models that may know anything. Kept in `model_index.json`, too.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->unet->vae"
    # The adapter's layers run inside the UNet's, so it has to be where the UNet is while that runs.
    _exclude_from_cpu_offload = ["safety_checker", "adapter"]  # noqa: RUF012 - the name and type diffusers reads
    _optional_components = [  # noqa: RUF012
        "safety_checker",
        "feature_extractor",
        "image_encoder",
        "text_encoder_2",
        "tokenizer_2",
    ]
    _callback_tensor_inputs = list(CALLBACK_TENSORS)  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        adapter: InstanceAdapter,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker = None,
        feature_extractor: CLIPImageProcessor = None,
        image_encoder: CLIPVisionModelWithProjection = None,
        text_encoder_2: CLIPTextModelWithProjection = None,
        tokenizer_2: CLIPTokenizer = None,
        requires_safety_checker: bool = False,
        force_zeros_for_empty_prompt: bool = True,
        default_settings: Mapping[str, Any] | None = None,
        vocabulary: Sequence[str] | None = None,
        familiar: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        defaults = dict(default_settings or {})
        self.default_settings = GenerationSettings.from_dict(defaults)
        if safety_checker is not None and feature_extractor is None:
            raise ModelError("feature_extractor: there is none, and the safety checker needs one")
        if unet is not None:
            check_components(
                unet=unet,
                vae=vae,
                text_encoder=text_encoder,
                tokenizer=tokenizer,
                text_encoder_2=text_encoder_2,
                tokenizer_2=tokenizer_2,
            )
        if adapter is not None and unet is not None:
            graft_once(adapter, unet)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            adapter=adapter,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(
            requires_safety_checker=requires_safety_checker,
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            default_settings=defaults,
            vocabulary=list(vocabulary or ()),
            familiar=dict(familiar or {}),
        )
        self.vocabulary = frozenset(vocabulary or ())
        self.familiar = Familiar.read(familiar)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self.refiner: Any = None
        self._interrupt = False
        self._num_timesteps, self._guidance_scale, self._guidance_rescale = 0, 1.0, 0.0
        self._clip_skip: int | None = None
        self._lora_sources: dict[str, str] = {}
        self._cross_attention_kwargs: dict[str, Any] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Take over a component. Another UNet, or another adapter, is grafted at once.

        Raises:
            ModelError: the adapter does not fit the UNet, or the UNet carries that of another pipeline.
        """
        if name == "scheduler" and value is not None:
            keep_latents(value)
        if name in ("unet", "adapter") and name in self.__dict__:
            self._regraft(name, value)
        super().__setattr__(name, value)

    def _regraft(self, name: str, value: Any) -> None:
        """Graft what takes the place of the UNet or the adapter; if that fails all is as it was."""
        unet, adapter = (value, self.adapter) if name == "unet" else (self.unet, value)
        if unet is None or adapter is None or adapter.grafted_on(unet):
            return
        before = self.adapter if self.adapter is not None and self.adapter.grafted_on(self.unet) else None
        if before is not None:
            before.remove()
        try:
            discard_forsaken_graft(unet)
            adapter.graft(unet)
        except ModelError:
            if before is not None:
                before.graft(self.unet)
            raise

    def load_lora_weights(self, *args: Any, **options: Any) -> None:
        """Load a LoRA file, as every Stable Diffusion pipeline of diffusers does.

        Raises:
            ModelError: PEFT is not installed.
        """
        if not USE_PEFT_BACKEND:
            raise ModelError("peft: LoRA files need it; pip install 'instancediffusion[adapters]'")
        before = {name for names in self.get_list_adapters().values() for name in names}
        super().load_lora_weights(*args, **options)
        sources = (*args[:1], *(options.get(name) for name in ("pretrained_model_name_or_path_or_dict", "weight_name")))
        source = "/".join(str(part) for part in sources if isinstance(part, str | os.PathLike))
        after = {name for names in self.get_list_adapters().values() for name in names}
        self._lora_sources |= dict.fromkeys(after - before, source)

    @property
    def loras_in_use(self) -> list[str]:
        """What the LoRA files that act on the UNet are called: their adapter names, and where they came from."""
        layers = [part for part in self.unet.modules() if isinstance(getattr(part, "active_adapters", None), list)]
        active = {name for layer in layers if not layer.disable_adapters for name in layer.active_adapters}
        names = sorted(active | set(self.fused_loras))
        return [*names, *(self._lora_sources[name] for name in names if name in self._lora_sources)]

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name; the second text encoder and tokenizer, which few models have, only where there are any.

        So the parts of a model of one text encoder, without the adapter, make a stock `StableDiffusionPipeline`.
        """
        seldom = ("text_encoder_2", "tokenizer_2")
        return {name: part for name, part in super().components.items() if part is not None or name not in seldom}

    @property
    def interrupt(self) -> bool:
        """Set to True, from a callback or another thread, to stop the current run before its next network call."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    @property
    def num_timesteps(self) -> int:
        """Steps of the current or last run; stock diffusers callbacks ask for it."""
        return self._num_timesteps

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the current or last run; stock diffusers callbacks ask for it."""
        return self._guidance_scale

    @property
    def guidance_rescale(self) -> float:
        """Guidance rescaling of the current or last run."""
        return self._guidance_rescale

    @property
    def clip_skip(self) -> int | None:
        """Skipped layers of the text encoder in the current or last run."""
        return self._clip_skip

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        """Attention arguments of the current or last run."""
        return self._cross_attention_kwargs

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the current or last run is guided."""
        return is_guided(self._guidance_scale) and self.unet.config.get("time_cond_proj_dim") is None

    @property
    def backbone(self) -> Backbone:
        """The base model of the UNet; without one, what the text encoders are of.

        Raises:
            ModelError: it is of none that is supported.
        """
        if self.unet is None:
            return BACKBONES["sd15" if self.text_encoder_2 is None else "sdxl"]
        return backbone_of(self.unet)

    @property
    def takes_pooled(self) -> bool:
        """Whether projected texts go beside the time step, as with XL."""
        return self.text_encoder_2 is not None if self.unet is None else self._pooled_dim is not None

    @property
    def _pooled_dim(self) -> int | None:
        return self.backbone.pooled_dim(self.unet)

    @property
    def _multiple_px(self) -> int:
        """What the sides of pictures are multiples of, in pixels."""
        return self.backbone.latent_multiple(self.unet) * self.latent_px

    @property
    def latent_px(self) -> int:
        """Image pixels in the side of one latent pixel."""
        side = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(side * latent_patch(latent_channels(self.unet), self.vae))

    def load_refiner(self, name: str = SDXL_REFINER, **options: Any) -> None:
        """Load a refiner onto this pipeline's device; see `pipeline.refiner.load_refiner`. It is not saved along."""
        self.refiner = load_refiner(name, **options).to(self.device)

    def picture_size(self, scene: Scene, settings: GenerationSettings | None = None) -> tuple[int, int]:
        """(height, width) in pixels that a scene is drawn at; see `pipeline.size.picture_size`."""
        chosen = settings or self.default_settings
        return picture_size(
            scene,
            chosen.height,
            chosen.width,
            native_side_px=self.backbone.native_side(self.unet) * self.latent_px,
            latent_px=self.latent_px,
            multiple_px=self._multiple_px,
        )

    def __call__(
        self,
        scene: Scene | Sequence[Scene] | str | Sequence[str] | None = None,
        *,
        prompt: str | Sequence[str] | None = None,
        instances: Sequence[Instance] | Sequence[Sequence[Instance]] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int | None = None,
        num_images_per_scene: int | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | Sequence[Tensor] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        controlnet: Any = None,
        control_image: Any = None,
        controlnet_conditioning_scale: float | Sequence[float] = 1.0,
        control_guidance_start: float | Sequence[float] = 0.0,
        control_guidance_end: float | Sequence[float] = 1.0,
        t2i_adapter: Any = None,
        t2i_adapter_image: Any = None,
        t2i_adapter_conditioning_scale: float | Sequence[float] = 1.0,
        layers: bool = False,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepCallback | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        preview: PreviewCallback | None = None,
        preview_every: int = 5,
        settings: GenerationSettings | None = None,
        preset: str | None = None,
        **overrides: Any,
    ) -> GenerationOutput | tuple[Any, list[bool] | None]:
        """Make pictures.

        Each image has a generator of its own on the CPU: an image is the same alone, in a batch of any size and
        beside any other scenes, to the rounding of batched arithmetic (in float32, latents agree to about 1e-4).
        Images that share one generator, as diffusers' argument of that name allows, draw from it in turn.

        Args:
            scene: a scene or several, with any numbers of instances, also none. A text, or several, is a `prompt`.
            prompt: a prompt, or several, in place of a scene. Words can be weighted, `(a red balloon:1.5)`, and longer
                prompts than the text encoder reads at once are read in parts.
            instances: the instances of `prompt`; with several prompts a list for each. Locations are in fractions of
                the canvas.
            height: of the pictures in pixels; None derives it from model and scene.
            width: of the pictures in pixels.
            num_inference_steps: steps of the sampler.
            timesteps: training steps to make them at, in place of their number; not all schedulers take them.
            sigmas: noise levels to make them at, the same.
            guidance_scale: classifier-free guidance; 1 or less = off.
            negative_prompt: what the pictures are not to show: one for all, for each scene, or for each image; None
                takes each scene's own.
            num_images_per_prompt: images of each scene or prompt, with seeds counting up from `seed`.
            num_images_per_scene: the same by another name.
            eta: noise that DDIM and TCD add on the way, 0 to 1.
            seed: a number, or one for each image of a scene; every scene is drawn with the same seeds. None draws
                one, to be found in the output.
            generator: in place of a seed: one for each image, or one that all draw from in turn.
            latents: start noise in place of the seed's: for each image (C, h, w), standard normal.
            prompt_embeds: (B, L, D) prompts that are encoded already, in place of `prompt` or of the scenes' prompts.
            negative_prompt_embeds: (B, L, D) the same for negative prompts.
            pooled_prompt_embeds: (B, P) with XL, the projected texts of its second encoder that go with them.
            negative_pooled_prompt_embeds: (B, P) the same for negative prompts.
            ip_adapter_image: for each IP-Adapter that is loaded, a picture.
            ip_adapter_image_embeds: its features in place of it, see `prepare_ip_adapter_image_embeds`.
            image: a picture to go on from, or one for each scene or image; it is brought to the size of the pictures,
                which is its own (rounded down to what the model can draw) where none is asked for.
            mask_image: what of it is drawn anew (white); the rest stays, to the pixel. An inpainting UNet needs both.
            strength: how much of the noise schedule is made on it, 0 to 1; None means 0.8, and 1 with a mask.
            controlnet: a `ControlNetModel`, or several; they act on whole scenes and on per-instance branches.
            control_image: the picture of the ControlNet (of several, a list with that of each), at the size of the
                pictures; for several scenes or images, a list.
            controlnet_conditioning_scale: weight of the ControlNet, or of each.
            control_guidance_start: fraction of the steps before it acts.
            control_guidance_end: fraction of the steps after which it does not act any more.
            t2i_adapter: a `T2IAdapter`, or several.
            t2i_adapter_image: its picture, in the same way.
            t2i_adapter_conditioning_scale: its weight.
            layers: decompose the picture, see `output.layers`. Instances run to the end on layers of their own
                (`mis_merge` is then `"layered"`), and so does the scene without any.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` to leave the decoding (and refining) out.
            return_dict: False returns the tuple (images, nsfw_content_detected).
            cross_attention_kwargs: for the UNet's attention layers, such as `scale` of LoRA layers.
            guidance_rescale: fraction of a guided prediction's contrast that is put back, 0 to 1.
            clip_skip: layers of the text encoder to leave out for prompts, from the last on.
            callback_on_step_end: called as `callback(pipeline, step, timestep, tensors)`, for the images being made;
                what it changes in `tensors` and returns replaces them, as does a guidance scale it sets.
            callback_on_step_end_tensor_inputs: the tensors it is given: `latents`, `prompt_embeds`,
                `negative_prompt_embeds`.
            preview: called as `preview(step, images)` with small pictures of the model's current estimate.
            preview_every: steps between two previews.
            settings: all settings in one; None means the model's `default_settings`.
            preset: a name of `presets.PRESETS`, such as `"fast"`: its settings replace those of the model; what is
                stated beside it replaces the preset's. With a LoRA file distilled to few steps in use, `fast` and
                `balanced` take the sampler, steps and guidance that it needs.
            **overrides: further fields of `GenerationSettings` that replace those, such as `grounding_fraction` or
                `mis_merge`; None replaces nothing.

        Returns:
            The output. An image that cannot be made (half precision may overflow) is named in a warning and in
            `failures`, and takes no others with it.

        Raises:
            SettingsError: an argument is unknown, out of range or contradicts another; raised before any work is done.
            ModelError: a part of the model is missing, a refiner is asked for and none is loaded, or no picture of the
                call is finite.
        """
        check_names(overrides, beside=self._call_names())
        overrides |= {
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "timesteps": timesteps,
            "sigmas": sigmas,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "eta": eta,
            "clip_skip": clip_skip,
            "strength": strength,
            "mis_merge": "layered" if layers else overrides.get("mis_merge"),
            "negative_prompt": negative_prompt if isinstance(negative_prompt, str) else None,
        }
        chosen = settings or self.default_settings
        if preset is not None:
            chosen = GenerationSettings.preset(preset, chosen, self.loras_in_use)
        chosen = chosen.replace(**{k: v for k, v in overrides.items() if v is not None})
        sized = picture_side(image, mask_image, self._multiple_px)
        if sized is not None and chosen.height is None and chosen.width is None:
            chosen = chosen.replace(height=sized[0], width=sized[1])
        output_type = output_type or "pil"
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self._check(chosen, output_type, preview_every, callback_on_step_end_tensor_inputs)
        check_inputs(self.unet, image)
        if image is None and (mask_image is not None or chosen.strength is not None):
            raise SettingsError(f"{'strength' if mask_image is None else 'mask_image'}: there is no image; give image=")
        if layers and output_type == "latent":
            raise SettingsError("layers: they are pictures; choose another output_type than latent")
        scenes = asked_scenes(scene, prompt, instances, prompt_embeds, lambda: self._canvas_px(chosen))
        if seed is not None and generator is not None:
            raise SettingsError("generator: a seed is given, too; leave one of them out")
        if num_images_per_prompt is not None and num_images_per_scene is not None:
            raise SettingsError("num_images_per_prompt: num_images_per_scene is given, too; leave one of them out")
        named = "num_images_per_scene" if num_images_per_prompt is None else "num_images_per_prompt"
        count = num_images_per_scene if num_images_per_prompt is None else num_images_per_prompt
        requests = image_requests(
            scenes,
            resolve_seeds(0 if generator is not None else seed, count, named),
            lambda s: self.picture_size(s, chosen),
            negative_prompt=chosen.negative_prompt if negative_prompt is None else negative_prompt,
            generator=generator,
        )
        attention = dict(cross_attention_kwargs or {})
        encoded = (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds)
        prompts = self._prompts(scenes, len(requests), encoded, attention)
        given = None if latents is None else list(latents)
        if given is not None:
            channels, px = latent_channels(self.unet), self.latent_px
            check_noise(given, [(channels, r.size[0] // px, r.size[1] // px) for r in requests])
        watch = Watch(self, callback_on_step_end, callback_on_step_end_tensor_inputs, preview, preview_every)
        scheduler = scheduler_for(chosen, self.scheduler, flow=self.backbone.flow)
        self._warn(prompts.texts, [instance.caption for s in scenes for instance in s.instances])
        self._interrupt = False
        self._num_timesteps = chosen.num_inference_steps
        self._guidance_scale, self._guidance_rescale = chosen.guidance_scale, chosen.guidance_rescale
        self._clip_skip, self._cross_attention_kwargs = chosen.clip_skip, attention
        try:
            # Not inference mode: weights that an offload hook moves in it could not be trained afterwards.
            with torch.no_grad():
                inputs = self._unet_inputs(chosen, ip_adapter_image, ip_adapter_image_embeds, requests, len(scenes))
                pictures = [] if image is None else given_pictures(self, image, mask_image, requests, len(scenes))
                control = read_control(
                    self,
                    controlnet=controlnet,
                    control_image=control_image,
                    controlnet_scale=controlnet_conditioning_scale,
                    start=control_guidance_start,
                    end=control_guidance_end,
                    t2i_adapter=t2i_adapter,
                    t2i_adapter_image=t2i_adapter_image,
                    t2i_adapter_scale=t2i_adapter_conditioning_scale,
                    requests=requests,
                    scenes=len(scenes),
                )
                run = Run(
                    self,
                    scenes,
                    requests,
                    prompts,
                    chosen,
                    scheduler,
                    self.latent_px,
                    given,
                    watch,
                    inputs,
                    attention,
                    pictures,
                    control,
                    layers,
                )
                self._num_timesteps = run.steps
                ends = run.latents()
                kept = [latent for latent, _ in ends]
                images, flags, failures = self._images(requests, ends, chosen, watch, output_type, pictures)
                decomposed = self._layers(run, images, failures) if layers else ()
        finally:
            self.maybe_free_model_hooks()
        stacked = torch.stack(kept) if len({latent.shape for latent in kept}) == 1 else kept
        if output_type == "latent":
            images = stacked
        if not return_dict:
            return images, flags
        return GenerationOutput(
            images=images,
            nsfw_content_detected=flags,
            latents=stacked,
            seeds=tuple(r.seed for r in requests),
            scenes=tuple(r.scene for r in requests),
            settings=chosen,
            timings=watch.finish(),
            network_rows=watch.rows,
            interrupted=watch.stopped,
            failures=failures,
            layers=decomposed,
        )

    @classmethod
    def _call_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__call__).parameters if name not in ("self", "overrides")]

    def _check(
        self, settings: GenerationSettings, output_type: str, preview_every: int, tensors: Sequence[str]
    ) -> None:
        if output_type not in OUTPUT_TYPES:
            raise SettingsError(f"output_type: {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")
        if preview_every < 1:
            raise SettingsError(f"preview_every: {preview_every} is not 1 or more")
        unknown = [name for name in tensors if name not in CALLBACK_TENSORS]
        if unknown:
            raise SettingsError(
                f"callback_on_step_end_tensor_inputs: {unknown[0]!r} is not one of {', '.join(CALLBACK_TENSORS)}"
            )
        if self.adapter is None:
            raise ModelError("adapter: there is none; pass adapter= (an InstanceAdapter) to the pipeline")
        self.adapter.check_on(self.unet)
        if settings.refiner_strength > 0 and output_type != "latent":
            if self.refiner is None:
                raise ModelError("refiner: none is loaded; call load_refiner(), or set refiner_strength to 0")
            check_refiner(self.refiner)

    def _canvas_px(self, settings: GenerationSettings) -> tuple[int, int]:
        """(height, width) of the canvas of a prompt without a scene: that of the picture."""
        native = self.picture_size(Scene(NO_PROMPT, (), 512, 512), GenerationSettings())
        return settings.height or native[0], settings.width or native[1]

    def _prompts(
        self,
        scenes: Sequence[Scene],
        images: int,
        encoded: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        attention: Mapping[str, Any],
    ) -> Prompts:
        """What is encoded for the scenes, with checks of what is encoded already."""
        embeds, negatives, pooled, negative_pooled = encoded
        width = self.backbone.context_dim(self.unet)
        counts = {
            "prompt_embeds": (embeds, (len(scenes),)),
            "negative_prompt_embeds": (negatives, (len(scenes), images)),
        }
        for name, (value, allowed) in counts.items():
            if value is not None and (value.dim() != 3 or value.shape[2] != width or len(value) not in allowed):
                wanted = " or ".join(str(count) for count in sorted(set(allowed)))
                raise SettingsError(f"{name}: its shape is {tuple(value.shape)}; give ({wanted}, tokens, {width}) here")
        taken = self._pooled_dim
        check_pooled(taken, "pooled_prompt_embeds", pooled, "prompt_embeds", embeds)
        check_pooled(taken, "negative_pooled_prompt_embeds", negative_pooled, "negative_prompt_embeds", negatives)
        texts = ["" if s.prompt == NO_PROMPT else s.prompt for s in scenes]
        return Prompts(texts, embeds, negatives, pooled, negative_pooled, attention.get("scale"))

    def _warn(self, prompts: Sequence[str], captions: Sequence[str]) -> None:
        warn_of_foreign_syntax([*prompts, *captions], stacklevel=3)
        warn_of_unknown_words([*prompts, *captions], self.vocabulary, stacklevel=3)
        if self.text_encoder is not None:
            self.familiar.warn(captions, self.tokenizer, self.text_encoder, self._execution_device, stacklevel=3)

    def _unet_inputs(
        self, settings: GenerationSettings, image: Any, embeds: Any, requests: Sequence[ImageRequest], scenes: int
    ) -> UNetInputs:
        guidance = guidance_embedding(self.unet, settings.guidance_scale)
        guided = is_guided(settings.guidance_scale) and guidance is None
        references = read_references(self, requests, guided)
        found = image_prompts(self, image, embeds, guided, len(requests), scenes, references)
        return dataclasses.replace(found, guidance=guidance)

    def _layers(self, run: Run, images: Any, failures: Mapping[int, str]) -> tuple[tuple[Layer, ...], ...]:
        """The layers of each image; none of one that failed or was stopped."""
        found: list[tuple[Layer, ...]] = []
        for r in run.requests:
            if r.index in failures or r.index not in run.parts:
                found.append(())
                continue
            drawn = {number: self._decoded(latent)[0] for number, latent in run.parts[r.index].items()}
            found.append(take_apart(r.scene, as_picture(images[r.index]), drawn))
        return tuple(found)

    def _decoded(self, latent: Tensor) -> Tensor:
        """(1, 3, H, W) of latents (C, h, w)."""
        on_device = latent[None].to(self._execution_device)
        return decode_latents(self.vae, on_device, upcast=self.backbone.upcasts_vae)

    def _failures(self, requests: Sequence[ImageRequest], values: Sequence[Tensor]) -> dict[int, str]:
        """By the index of images whose values are not finite, why they failed.

        Raises:
            PicturesError: all did.
        """
        bad = [r for r, value in zip(requests, values, strict=True) if not torch.isfinite(value).all()]
        if len(bad) == len(requests):
            raise PicturesError(NOT_FINITE)
        for r in bad:
            warnings.warn(f"{r.scene.prompt[:40]!r}, seed {r.seed}: {NOT_FINITE}", FailureWarning, stacklevel=4)
        return {r.index: NOT_FINITE for r in bad}

    def _images(
        self,
        requests: Sequence[ImageRequest],
        ends: Sequence[tuple[Tensor, Tensor]],
        settings: GenerationSettings,
        watch: Watch,
        output_type: str,
        given: Sequence[GivenPicture],
    ) -> tuple[Any, list[bool] | None, dict[int, str]]:
        """Decode clean latents, look at what they show, and refine the pictures if asked for.

        What is to stay of given pictures is put back, also after refining.

        Returns:
            The images (None for `"latent"`), what the safety checker found, and failures by index.
        """
        if output_type == "latent":
            return None, None, self._failures(requests, [latent for latent, _ in ends])
        device = self._execution_device
        with watch.timed("decoding"):
            decoded = [self._decoded(latent) for _, latent in ends]
            failures = self._failures(requests, decoded)
            if given:
                decoded = [own.kept_in(picture[0])[None] for own, picture in zip(given, decoded, strict=True)]
            flags: list[bool] = []
            pictures: list[Image.Image | Tensor | None] = []
            for k, picture in enumerate(decoded):
                checked, unsafe = (
                    (picture, None)
                    if k in failures
                    else self.run_safety_checker(
                        picture, device, self.text_encoder.dtype if self.text_encoder is not None else self.unet.dtype
                    )
                )
                flags += [bool(unsafe and unsafe[0])]
                pictures.append(None if k in failures else checked[0])
        if settings.refiner_strength > 0 and not watch.stopped:
            with watch.timed("refining"):
                for k, r in enumerate(requests):
                    decoded_picture = pictures[k]
                    if isinstance(decoded_picture, Tensor):
                        drawn = to_images(decoded_picture[None])[0]
                        refined = refine(self.refiner, drawn, r.scene.prompt, r.negative_prompt, r.seed, settings)
                        pictures[k] = given[k].kept_in(as_picture(refined)) if given else refined
        return as_output(pictures, output_type), None if self.safety_checker is None else flags, failures
