"""The published sampler's latents: 8 PLMS steps at 32x32, plain and with both rules of the Multi-instance Sampler."""

from functools import partial

import numpy as np
import pytest
import torch

from instancediffusion.checkpoints import official_scheduler
from instancediffusion.conditioning import LocationTensors
from instancediffusion.pipeline.denoiser import NetworkDenoiser
from instancediffusion.sampling import (
    CropMerge,
    Guidance,
    MeanMerge,
    Steps,
    Window,
    build_scheduler,
    grounding_schedule,
    sample_multi_instance,
    steps_in_fraction,
)

from .checkpoint import HERE

STEPS, GUIDANCE, GROUNDING, SHARE = 8, 7.5, 0.75, 0.36
MERGE_AFTER = steps_in_fraction(SHARE, STEPS, "published")


@pytest.fixture(scope="module")
def data():
    with np.load(HERE / "sampling.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def locations(data, rows):
    """Locations of one image that holds the instances `rows`, with box, point and mask, as published."""
    count = len(rows)
    bitmaps = torch.from_numpy(np.unpackbits(data["segmentations"].numpy())).view(3, 512, 512)
    present = torch.ones(1, count, dtype=torch.bool)
    return LocationTensors(
        boxes=data["boxes"][None, rows],
        points=data["points"][None, rows],
        scribbles=data["scribbles"][None, rows],
        mask_points=data["mask_points"][None, rows],
        used=present,
        present={"box": present, "point": present, "scribble": ~present, "mask": present},
        z_order=torch.zeros(1, count),
        z_known=~present,
        segmentations=bitmaps[None, rows],
        segmentation_channel=torch.arange(count)[None],
    )


@pytest.fixture(scope="module")
def denoiser(components, data):
    adapter = components.adapter
    with torch.inference_mode():
        bank = [
            adapter(locations(data, rows), data["caption_features"][None, rows]) for rows in ([0, 1, 2], [0], [1], [2])
        ]
        bank.append(adapter(LocationTensors.empty(1), torch.zeros(1, 0, 768)))
    contexts = torch.stack([data["context_prompt"], *data["context_captions"], data["context_negative"]])
    return NetworkDenoiser(
        components.unet,
        contexts,
        bank,
        lambda b: (b.trajectory, b.trajectory) if b.conditional else (4, 4),
        grounding_scales=grounding_schedule(STEPS, GROUNDING, rounding="published"),
    )


def merges(name, data):
    if name == "plms":
        return []
    if name == "mean":
        return [MeanMerge((1, 2, 3))]
    windows = [Window.published(box, (32, 32)) for box in data["boxes"].tolist()]
    return [CropMerge(tuple(enumerate(windows, start=1)))]


@pytest.mark.parametrize(("name", "rows"), [("plms", 18), ("mean", 36), ("crop", 36)])
def test_published_latents(denoiser, data, name, rows):
    path, before = [], denoiser.rows_done
    with torch.inference_mode():
        out = sample_multi_instance(
            partial(Guidance(GUIDANCE).denoiser, denoiser),
            build_scheduler("plms", official_scheduler()),
            data["noise"],
            Steps(STEPS),
            merges=merges(name, data),
            merge_after=MERGE_AFTER,
            observe=lambda report: path.append(report.latents[0].clone()) and None,
        )
    torch.testing.assert_close(out.latents, data[name], rtol=0, atol=5e-4)
    assert denoiser.rows_done - before == rows
    # Step by step: the whole scene's latents, as recorded by the published code before it merges.
    for step, (ours, published) in enumerate(zip(path, data[f"{name}_path"], strict=True)):
        if name == "plms" or step != MERGE_AFTER - 1:
            torch.testing.assert_close(ours, published, rtol=0, atol=5e-4, msg=lambda m, s=step: f"step {s}: {m}")
