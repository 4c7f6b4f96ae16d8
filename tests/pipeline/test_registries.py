"""A scheduler, merge rule or mask rule of one's own is one object, registered; settings, commands, studio know it."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from instancediffusion import Box, Instance, Scene
from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.choices import INSTANCE_MASK_RULES, MERGE_RULES, SCHEDULERS
from instancediffusion.cli.generate import generate
from instancediffusion.conditioning import AttentionMaskRule, instance_regions, register_mask_rule
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.merging import MergeRule, register
from instancediffusion.sampling import MeanMerge, SchedulerKind, register_scheduler
from instancediffusion.studio.controls import described
from tests.tiny import random_locations
from tests.tiny_pipeline import scene_of

CALL = {"seed": 0, "num_inference_steps": 3, "output_type": "np"}


def known_everywhere(field, option, text):
    """Whether command line and studio take a name that was registered after they were imported."""
    chosen = next(one for one in generate.params if option in one.opts).type.convert(text, None, None)
    shown = next(control for control in described(GenerationSettings()) if control["name"] == field)
    return chosen in [choice["value"] for choice in shown["choices"]]


def test_a_scheduler_of_ones_own(pipe):
    steps = []

    class Counted(DDIMScheduler):
        def step(self, model_output, timestep, sample, eta=0.0, generator=None, return_dict=True):
            steps.append(int(timestep))
            return super().step(model_output, timestep, sample, eta=eta, return_dict=return_dict)

    call = CALL | {"mis_fraction": 0.0}
    try:
        register_scheduler(SchedulerKind("counted_ddim", Counted))
        assert known_everywhere("scheduler", "--scheduler", "Counted DDIM")
        own = pipe(scene_of(1), scheduler="Counted DDIM", **call).images
        assert np.array_equal(own[0], pipe(scene_of(1), scheduler="ddim", **call).images[0])
        assert len(steps) == 3 and steps[0] != 999
        register_scheduler(SchedulerKind("counted_ddim", Counted, {"timestep_spacing": "trailing"}))
        pipe(scene_of(1), scheduler="counted_ddim", **call)
        assert len(steps) == 6 and steps[3] == 999
    finally:
        SCHEDULERS.pop("counted_ddim")
    with pytest.raises(SettingsError, match="counted_ddim"):
        GenerationSettings(scheduler="counted_ddim")


def test_a_scheduler_has_a_plain_name():
    with pytest.raises(ValueError, match="write 'my_euler_a'"):
        register_scheduler(SchedulerKind("My Euler ancestral", "EulerAncestralDiscreteScheduler"))
    assert "My Euler ancestral" not in SCHEDULERS


def test_a_merge_rule_of_ones_own(pipe):
    made = []

    def nothing(scene, canvas):
        made.append((len(scene.instances), canvas.size, canvas.published))
        return MeanMerge(())  # the mean of the whole scene alone

    try:
        register(MergeRule("nothing", nothing))
        assert known_everywhere("mis_merge", "--mis-merge", "nothing")
        own = pipe(scene_of(2), mis_merge="nothing", mis_fraction=0.7, **CALL).images
    finally:
        MERGE_RULES.pop("nothing")
    assert made and set(made) == {(2, (16, 16), False)}
    without = pipe(scene_of(2), mis_fraction=0.0, **CALL).images
    with_mean = pipe(scene_of(2), mis_merge="mean", mis_fraction=0.7, **CALL).images
    assert np.allclose(own[0], without[0], atol=1e-5) and not np.allclose(own[0], with_mean[0], atol=1e-3)
    with pytest.raises(SettingsError, match="mis_merge: 'nothing' is not one of mean, crop, layered"):
        GenerationSettings(mis_merge="nothing")


def test_an_attention_mask_rule_of_ones_own(pipe):
    """It is told of locations and a map's size, and says by a share of each instance what every position sees of it."""

    def own(inputs):
        return inputs.weighted(instance_regions(inputs.locations, inputs.size)[0].float())

    def nothing(locations, size):
        return torch.zeros(*locations.used.shape, *size)

    corners = [Box(0, 0, 0.5, 0.5), Box(0.4, 0.3, 1, 0.9)]
    scene = Scene("two", tuple(Instance(f"thing {box.x0}", box=box) for box in corners), 64, 64)
    call, found = {**CALL, "mis_fraction": 0.0}, {}
    try:
        register_mask_rule(AttentionMaskRule("own_boxes", own, nothing))
        assert known_everywhere("instance_mask", "--instance-mask", "own_boxes")
        found["grounding"] = pipe(scene, instance_mask="own_boxes", **call).images
        captions, places = torch.ones(1, 3, 8), random_locations(1, 3)
        features = RelativeFeatures(8, 6)
        assert not features.seen(places, captions, (4, 4), "own_boxes").any()
        assert features.seen(places, captions, (4, 4), "none").any()
        register_mask_rule(AttentionMaskRule("own_boxes", lambda inputs: inputs.unmasked()))
        found["none"] = pipe(scene, instance_mask="own_boxes", **call).images
    finally:
        INSTANCE_MASK_RULES.pop("own_boxes")
    for rule, images in found.items():
        assert np.allclose(images[0], pipe(scene, instance_mask=rule, **call).images[0], atol=1e-5), rule
    assert not np.allclose(found["none"][0], found["grounding"][0], atol=1e-3)
    with pytest.raises(SettingsError, match="instance_mask: 'own_boxes' is not one of none, grounding, full"):
        GenerationSettings(instance_mask="own_boxes")
