"""`InstanceDiffusionPipeline.edit`."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.editing import (
    Source,
    as_mask,
    check_shape,
    find_change,
    pasted,
    read_source,
    why_nothing,
)
from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.pipeline.size import native_picture_size
from instancediffusion.scene import Scene
from instancediffusion.settings import GenerationSettings

_LARGEST = 4  # times as many pixels as the model was trained on are still drawn at their own size


class EditMethods:
    """Editing of pictures by their scenes."""

    if TYPE_CHECKING:
        unet: Any
        backbone: Any
        default_settings: GenerationSettings
        __call__: Any

        @property
        def latent_px(self) -> int:
            """Image pixels in the side of one latent pixel."""

        @property
        def _multiple_px(self) -> int: ...

    def edit(
        self,
        picture: Any,
        scene: Scene,
        *,
        before: Scene | None = None,
        index: int = 0,
        redraw: Sequence[int] = (),
        margin: float = 0.0,
        seed: int | None = None,
        settings: GenerationSettings | None = None,
        **options: Any,
    ) -> GenerationOutput:
        """Change a picture by changing its scene.

        Only what the change can touch is drawn anew: the regions of instances that were added, removed, moved or
        changed, the old ones and the new ones, and of instances that were only restacked their overlap. All other
        pixels stay as they are, to the bit. A picture of a size that the model does not draw is drawn at one that it
        does, and only the changed part is scaled and put into the picture.

        Args:
            picture: a `GenerationOutput`, an image, or an image file (path or bytes); a PNG made here carries its
                scene, seed and settings, and so does a PIL image opened from it.
            scene: what the picture is to show; of the same shape.
            before: what it shows, for pictures that do not carry it. Without it all instances of `scene` are new.
            index: which picture of an output.
            redraw: instances of `scene`, from 0, that are drawn anew though nothing about them changed.
            margin: by how much the changed regions are widened on each side, as a fraction of the canvas.
            seed: None takes that of the picture; if there is none, or `redraw` is all that changes, one is drawn.
            settings: None takes those of the picture, and else the model's.
            **options: further arguments of the call, such as `num_inference_steps` or `strength` (1 if not given).

        Returns:
            The output, with the edited picture of the size it had, and `redrawn`, the mask of what was drawn anew.

        Raises:
            SettingsError: there is nothing to change, the picture cannot be read, or has another shape.
        """
        taken = [name for name in ("image", "mask_image", "layers", "output_type") if options.get(name) is not None]
        if taken:
            raise SettingsError(f"{taken[0]}: edit() sets it; call the pipeline itself to choose it")
        if not isinstance(scene, Scene):
            raise SettingsError(f"scene: it is {type(scene).__name__}; give a Scene (load_scene reads a file)")
        source = read_source(picture, index)
        shown = before if before is not None else source.scene
        check_shape(source.image, shown, scene)
        wrong = [i for i in redraw if not 0 <= i < len(scene.instances)]
        if wrong:
            raise SettingsError(f"redraw: there is no instance {wrong[0]}; the scene has {len(scene.instances)}")
        if not 0 <= margin <= 1:
            raise SettingsError(f"margin: {margin} is not a fraction of the canvas from 0 to 1")
        size = (source.image.height, source.image.width)
        change = find_change(shown, scene, size, redraw=redraw, margin=margin)
        if not change.region.any():
            raise SettingsError(why_nothing(shown, scene, redraw))
        if seed is None:
            only_redrawn = not change.before and not change.restacked and set(change.after) <= set(redraw)
            seed = secrets.randbelow(2**32) if source.seed is None or only_redrawn else source.seed
        chosen = settings or self._settings_of(source)
        height, width = self._drawn_size(source, options)
        mask = as_mask(change.region)
        options = {"strength": 1.0, **options, "height": height, "width": width}
        # Where latent pixels are coarser than pixels, what is drawn may reach into what is kept; `pasted` does not.
        drawn = mask.resize((width, height), Image.Resampling.BOX).point(lambda value: 255 if value else 0)
        output: GenerationOutput = self(
            scene, image=source.image, mask_image=drawn, seed=seed, settings=chosen, **options
        )
        images = [None if image is None else pasted(source.image, image, mask) for image in output.images]
        return dataclasses.replace(output, images=images, redrawn=mask)

    def _settings_of(self, source: Source) -> GenerationSettings:
        fields = self.default_settings.to_dict()
        stated = {name: value for name, value in source.settings.items() if name in fields}
        try:
            return self.default_settings.replace(**{**stated, "strength": None})
        except (SettingsError, TypeError):  # of another version
            return self.default_settings

    def _drawn_size(self, source: Source, options: dict[str, Any]) -> tuple[int, int]:
        """(height, width) that the picture is drawn at."""
        if options.get("height") and options.get("width"):
            return options["height"], options["width"]
        multiple, native = self._multiple_px, self.backbone.native_side(self.unet) * self.latent_px
        height, width = source.image.height, source.image.width
        if height % multiple == 0 and width % multiple == 0 and height * width <= _LARGEST * native**2:
            return height, width
        canvas = dataclasses.replace(Scene("a picture", (), 512, 512), width=min(width, 8192), height=min(height, 8192))
        return native_picture_size(canvas, native, multiple)
