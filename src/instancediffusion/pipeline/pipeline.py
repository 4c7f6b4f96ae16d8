"""`InstanceDiffusionPipeline`: scenes in, pictures out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.completion import complete_requests
from instancediffusion.pipeline.decoding import decode_latents, latent_patch, to_images
from instancediffusion.pipeline.loading import DEFAULT_MODEL, check_complete, graft_once, load_adapter, local_model
from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.pipeline.refiner import SDXL_REFINER, check_refiner, load_refiner, refine
from instancediffusion.pipeline.requests import ImageRequest, image_requests, resolve_seeds
from instancediffusion.pipeline.run import Run, check_noise, negative_prompt_of, scheduler_for
from instancediffusion.pipeline.settings import GenerationSettings
from instancediffusion.pipeline.size import picture_size
from instancediffusion.pipeline.vocabulary import warn_of_unknown_words
from instancediffusion.pipeline.watch import PreviewCallback, StepCallback, Watch
from instancediffusion.scene import Scene


class InstanceDiffusionPipeline(DiffusionPipeline):
    """Text-to-image generation from scenes, with an instance adapter on a stock latent diffusion model.

    Args:
        vae: an `AutoencoderKL`.
        text_encoder: a `CLIPTextModel`; it encodes prompts and captions alike.
        tokenizer: its tokenizer.
        unet: a stock `UNet2DConditionModel`. The adapter is grafted on it unless it is already.
        adapter: an `InstanceAdapter` that fits the UNet.
        scheduler: any diffusers scheduler of the noise schedule the UNet was trained with.
        default_settings: the settings this model is best run with, as `GenerationSettings.to_dict` writes them; fields
            left out take the library's defaults. Kept in the folder's `model_index.json`.
        vocabulary: every word the model was trained on, for models of a small world; texts with other words give a
            warning. None for models that may know any. Kept in `model_index.json`, too.
        caption_choices: what a picture has to choose where a caption leaves it open, by noun, see
            `scene.completion`. None leaves captions alone. Kept in `model_index.json`, too.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    # Its layers run inside the UNet's, so it has to be where the UNet is while that runs.
    _exclude_from_cpu_offload = ["adapter"]  # noqa: RUF012 - the name and type diffusers reads
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        adapter: InstanceAdapter,
        scheduler: Any,
        default_settings: Mapping[str, Any] | None = None,
        vocabulary: Sequence[str] | None = None,
        caption_choices: Mapping[str, Any] | None = None,
        known_objects: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        defaults = dict(default_settings or {})
        self.default_settings = GenerationSettings.from_dict(defaults)
        graft_once(adapter, unet)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, adapter=adapter, scheduler=scheduler
        )
        self.register_to_config(
            default_settings=defaults,
            vocabulary=list(vocabulary or ()),
            caption_choices=dict(caption_choices or {}),
            known_objects=dict(known_objects or {}),
        )
        self.vocabulary = frozenset(vocabulary or ())
        self.refiner: Any = None
        self._interrupt = False
        self._num_timesteps, self._guidance_scale = 0, 1.0

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] = DEFAULT_MODEL, **options: Any) -> InstanceDiffusionPipeline:
        """Load a model.

        Args:
            name: `"mini"` (in the package; the default), `"sd15"`, a folder, or a hub id.
            options: arguments of `DiffusionPipeline.from_pretrained`, such as `torch_dtype`, or components that take
                the place of the folder's. `adapter` may also be a folder or hub id.

        Raises:
            ModelError: no such model, or a component is missing.
        """
        hub = {k: options[k] for k in ("revision", "cache_dir", "token", "local_files_only") if k in options}
        folder = str(local_model(name, **hub))
        check_complete(folder, options)
        if "dtype" not in options:
            # Stated, because diffusers and transformers read half-precision files into different types.
            options.setdefault("torch_dtype", torch.float32)
        kept = {key: options[key] for key in ("torch_dtype", "dtype") if key in options}
        options["adapter"] = load_adapter(options.get("adapter"), folder, **kept)
        pipeline: InstanceDiffusionPipeline = super().from_pretrained(folder, **options)
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Read `model_index.json`, as diffusers does, and say where the adapter's class is.

        diffusers wants the module a class is defined in, since it looks for the base class there, too; folders name
        the package, which may be cut anew.
        """
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.get("adapter"):
            config["adapter"] = [InstanceAdapter.__module__, InstanceAdapter.__name__]
        return loaded

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
    def latent_px(self) -> int:
        """Pixels in the side of one latent cell."""
        side = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(side * latent_patch(self.unet.config.in_channels, self.vae))

    def load_refiner(self, name: str = SDXL_REFINER, **options: Any) -> None:
        """Load a refiner onto this pipeline's device; see `pipeline.refiner.load_refiner`. It is not saved along."""
        self.refiner = load_refiner(name, **options).to(self.device)

    def picture_size(self, scene: Scene, settings: GenerationSettings | None = None) -> tuple[int, int]:
        """(height, width) in pixels that a scene is drawn at; see `pipeline.size.picture_size`."""
        chosen, config = settings or self.default_settings, self.unet.config
        side = config.sample_size if isinstance(config.sample_size, int) else min(config.sample_size)
        return picture_size(
            scene,
            chosen.height,
            chosen.width,
            native_side_px=side * self.latent_px,
            latent_px=self.latent_px,
            levels=len(config.block_out_channels),
        )

    def __call__(
        self,
        scene: Scene | Sequence[Scene],
        *,
        seed: int | Sequence[int] | None = None,
        num_images_per_scene: int | None = None,
        latents: Tensor | Sequence[Tensor] | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        preview: PreviewCallback | None = None,
        preview_every: int = 5,
        settings: GenerationSettings | None = None,
        **overrides: Any,
    ) -> GenerationOutput:
        """Make pictures.

        Each image has a generator of its own on the CPU: an image is the same alone, in a batch of any size and
        beside any other scenes, to the rounding of batched arithmetic (in float32, latents agree to about 1e-4).

        Args:
            scene: a scene or several, with any numbers of instances, also none.
            seed: a number, or one for each image of a scene; every scene is drawn with the same seeds. None draws
                one, to be found in the output.
            num_images_per_scene: images of each scene, with seeds counting up from `seed`.
            latents: start noise in place of the seed's: for each image (C, h, w), standard normal.
            output_type: `"pil"`, or `"latent"` to leave the decoding (and refining) out.
            callback_on_step_end: called as `callback(pipeline, step, timestep, {"latents": latents})`, with the
                latents of the images being made; latents in what it returns replace them.
            preview: called as `preview(step, images)` with small pictures of the model's current estimate.
            preview_every: steps between two previews.
            settings: all settings in one; None means the model's `default_settings`.
            **overrides: single fields of `GenerationSettings` that replace those, such as `num_inference_steps`,
                `guidance_scale` or `mis_merge`; None replaces nothing.

        Raises:
            SettingsError: a setting is unknown or out of range; raised before any work is done.
            ModelError: a refiner is asked for and none is loaded, or the picture is not finite.
        """
        chosen = (settings or self.default_settings).replace(**{k: v for k, v in overrides.items() if v is not None})
        self._check(chosen, output_type, preview_every)
        scenes = [scene] if isinstance(scene, Scene) else list(scene)
        seeds = resolve_seeds(seed, num_images_per_scene)
        requests = image_requests(scenes, seeds, lambda s: self.picture_size(s, chosen))
        texts = [text for s in scenes for text in (s.prompt, *(instance.caption for instance in s.instances))]
        warn_of_unknown_words(texts, self.vocabulary, stacklevel=2)
        told, told_requests = complete_requests(
            requests,
            self.config.caption_choices if chosen.complete_captions else {},
            self.config.known_objects if chosen.place_objects else {},
        )
        given = None if latents is None else list(latents)
        if given is not None:
            channels, cell = int(self.unet.config.in_channels), self.latent_px
            check_noise(given, [(channels, r.size[0] // cell, r.size[1] // cell) for r in requests])
        watch = Watch(self, callback_on_step_end, preview, preview_every)
        scheduler = scheduler_for(chosen, self.scheduler)
        run = Run(self, told, told_requests, chosen, scheduler, self.latent_px, given, watch)
        self._interrupt = False
        self._num_timesteps, self._guidance_scale = chosen.num_inference_steps, chosen.guidance_scale
        try:
            # Not inference mode: weights that an offload hook moves in it could not be trained afterwards.
            with torch.no_grad():
                ends = run.latents()
                images = self._images(requests, [estimate for _, estimate in ends], chosen, watch, output_type)
        finally:
            self.maybe_free_model_hooks()
        kept = [latent for latent, _ in ends]
        return GenerationOutput(
            images=images,
            latents=torch.stack(kept) if len({latent.shape for latent in kept}) == 1 else kept,
            seeds=tuple(r.seed for r in requests),
            scenes=tuple(r.scene for r in requests),
            drawn=tuple(r.scene for r in told_requests),
            settings=chosen,
            timings=watch.finish(),
            network_rows=watch.rows,
            interrupted=watch.stopped,
        )

    def _check(self, settings: GenerationSettings, output_type: str, preview_every: int) -> None:
        if output_type not in ("pil", "latent"):
            raise SettingsError(f"output_type: {output_type!r} is not one of pil, latent")
        if preview_every < 1:
            raise SettingsError(f"preview_every: {preview_every} is not 1 or more")
        if settings.refiner_strength > 0 and output_type == "pil":
            if self.refiner is None:
                raise ModelError("refiner: none is loaded; call load_refiner(), or set refiner_strength to 0")
            check_refiner(self.refiner)

    def _images(
        self,
        requests: Sequence[ImageRequest],
        estimates: Sequence[Tensor],
        settings: GenerationSettings,
        watch: Watch,
        output_type: str,
    ) -> list[Image.Image]:
        """Decode clean latents, and refine the pictures if asked for."""
        if output_type == "latent":
            return []
        with watch.timed("decoding"):
            device = self._execution_device
            images = [to_images(decode_latents(self.vae, latent[None].to(device)))[0] for latent in estimates]
        if settings.refiner_strength > 0 and not watch.stopped:
            with watch.timed("refining"):
                images = [
                    refine(self.refiner, image, r.scene.prompt, negative_prompt_of(r.scene, settings), r.seed, settings)
                    for image, r in zip(images, requests, strict=True)
                ]
        return images
