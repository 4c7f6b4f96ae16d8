"""What a user does with models of the hub, in a process of its own: `python -m tests.hub.client RESULTS`.

The hub's client reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is imported, so they come with the environment.
"""

import json
import sys
from pathlib import Path

from instancediffusion import InstanceDiffusionPipeline
from instancediffusion.errors import InstanceDiffusionError
from tests.tiny_pipeline import scene_of

FAST = {"seed": 0, "num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}


def draw(name, **options):
    pipe = InstanceDiffusionPipeline.from_pretrained(name, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe(scene_of(3), **FAST).latents.flatten().tolist()


def refusal(name, **options):
    try:
        InstanceDiffusionPipeline.from_pretrained(name, **options)
    except InstanceDiffusionError as error:
        return str(error)
    raise AssertionError(f"{name} was loaded")


def from_cache_too(**options):
    """What works on the hub, and offline afterwards."""
    yield "ours", draw("me/ours", **options)
    yield "variant", draw("me/variant", **options)
    yield "variant by name", draw("me/variant", variant="fp16", **options)
    yield "stock", draw("me/stock", adapter="me/adapter", **options)
    yield "stock with the adapter of a pipeline", draw("me/stock", adapter="me/ours", **options)
    yield "single file", draw("me/files/finetune.safetensors", adapter="me/adapter", config="me/stock", **options)


def main():
    """Everything that needs the hub."""
    yield from from_cache_too()
    yield "no adapter", refusal("me/stock")
    yield "only an adapter", refusal("me/adapter")
    yield "no such variant", refusal("me/ours", variant="bf16")
    yield "no such repository", refusal("me/nothing")
    yield "no such adapter", refusal("me/stock", adapter="me/files")
    pipe = InstanceDiffusionPipeline.from_pretrained("me/ours")
    pipe.push_to_hub("me/pushed")
    pipe.adapter.push_to_hub("me/pushed-adapter")
    pipe.adapter.push_to_hub("me/pushed-adapter", variant="fp16")
    yield "pushed", draw("me/pushed")
    yield "pushed adapter", draw("me/stock", adapter="me/pushed-adapter", variant=None)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(dict(main())))
