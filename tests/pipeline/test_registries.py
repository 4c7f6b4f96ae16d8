"""A scheduler or a merge rule of one's own is one object, registered; settings, commands and the studio know it."""

import numpy as np
import pytest
from diffusers import DDIMScheduler

from instancediffusion.choices import MERGE_RULES, SCHEDULERS
from instancediffusion.cli.generate import generate
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.merging import MergeRule, register
from instancediffusion.sampling import MeanMerge, SchedulerKind, register_scheduler
from instancediffusion.studio.controls import described
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
