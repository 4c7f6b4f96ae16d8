"""A picture of everything that `mini` can draw, one object each.

    python examples/object_grid.py objects.png
    python examples/object_grid.py objects.png my-model      # the folder of another export

What a caption leaves open, such as a colour or the side an animal looks to, is the network's choice and
differs from seed to seed.
"""

import json
import sys

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Scene
from instancediffusion.pipeline.loading import local_model
from instancediffusion.rendering import contact_sheet

TOGETHER, COLUMNS, SIDE_PX = 12, 12, 100


def scene(name: str) -> Scene:
    """One large object in a meadow."""
    caption = f"an {name}" if name[0] in "aeiou" else f"a {name}"
    return Scene(f"{caption} in a meadow", (Instance(caption, box=Box(0.14, 0.14, 0.86, 0.86)),), 256, 256)


def main(output: str, model: str = "mini") -> None:
    """Draw all objects that the model's card lists."""
    names = json.loads((local_model(model) / "card.json").read_text(encoding="utf-8"))["objects"]
    pipe = InstanceDiffusionPipeline.from_pretrained(model)
    images = []
    for start in range(0, len(names), TOGETHER):
        images += pipe([scene(name) for name in names[start : start + TOGETHER]], seed=0).images
    small = [image.resize((SIDE_PX, SIDE_PX)) for image in images]
    contact_sheet(small, COLUMNS, names).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
