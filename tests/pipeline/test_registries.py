"""What is added from outside is one object, registered: pipelines, settings, commands and the studio then know it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, DDIMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from instancediffusion import Box, Instance, InstanceAdapter, InstanceDiffusionPipeline, Scene
from instancediffusion.adapter.backbones import BACKBONES, Backbone, register_backbone
from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.choices import INSTANCE_MASK_RULES, MERGE_RULES, SCHEDULERS
from instancediffusion.cli.generate import generate
from instancediffusion.conditioning import AttentionMaskRule, instance_regions, register_mask_rule
from instancediffusion.conditioning.text import encode_texts
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.merging import MergeRule, register
from instancediffusion.sampling import MeanMerge, SchedulerKind, register_scheduler
from instancediffusion.studio.controls import described
from tests.tiny import random_locations, tiny_adapter
from tests.tiny_pipeline import scene_of, tiny_scheduler, tiny_text_encoder, tiny_tokenizer, tiny_vae

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
    with pytest.raises(SettingsError, match="mis_merge: 'nothing' is not one of mean, crop, layered, regional"):
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


class OwnBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x, told=None):
        del told
        return x + torch.tanh(self.inner(x))


class OwnGroundedBlock(OwnBlock):
    def __call__(self, x, told=None):
        return super().__call__(x + told.change(self.grounding_layer, x) if told is not None and told.scale else x)


class OwnNetwork(ModelMixin, ConfigMixin):
    """No UNet at all: latents and the mean of the text, through one block."""

    @register_to_config
    def __init__(self, in_channels=4, sample_size=16):
        super().__init__()
        self.into, self.out = nn.Linear(4, 16), nn.Linear(16, 4)
        self.text, self.block = nn.Linear(32, 16), OwnBlock()

    def forward(self, latents, text, told=None):
        x = self.into(latents.flatten(2).mT) + self.text(text.mean(1, keepdim=True))
        return self.out(self.block(x, told)).mT.unflatten(2, latents.shape[2:])


class OwnBase(Backbone):
    """Its text encoder reads capitals only."""

    name, title, network, text_encoders = "own", "My own", "OwnNetwork", ("CLIPTextModel",)
    stock = {OwnGroundedBlock: OwnBlock}  # noqa: RUF012

    def fits(self, network):
        return isinstance(network, OwnNetwork)

    def sites(self, network):
        yield "block", network.block

    def shape(self, block):
        return 16, 2

    def grounded(self, block):
        return [(block, OwnGroundedBlock)]

    def map_sizes(self, network, height, width):
        return [(height, width)]

    def context_dim(self, network):
        return 32

    def latent_channels(self, network):
        return 4

    def latent_multiple(self, network):
        return 1

    def encode(self, pipeline, texts, *, captions=(), clip_skip=None, device=None):
        capitals = {text: text.upper() for text in texts}
        bank = encode_texts(capitals.values(), pipeline.tokenizer, pipeline.text_encoder, device or "cpu")
        return replace(bank, row={text: bank.row[capital] for text, capital in capitals.items()})

    def text_inputs(self, context, counts, pooled, size):
        return {}

    def call(self, network, sample, timestep, context, grounding, *, text_keys=None, attention=None, inputs=None):
        height, width = sample.shape[-2:]
        return network(sample, context, grounding.on_map(len(sample), height, width))


def test_a_base_model_of_ones_own(tmp_path):
    """A network that nothing here knows is grounded, and drawn with, by all of the pipeline."""
    torch.manual_seed(0)
    network, tokenizer = OwnNetwork().eval(), tiny_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="OwnNetwork is the network of no base model that is known"):
        InstanceAdapter.for_unet(network)
    parts = {"unet": network, "vae": tiny_vae(), "tokenizer": tokenizer, "scheduler": tiny_scheduler()}
    parts["text_encoder"] = tiny_text_encoder(len(tokenizer))
    scene, call = scene_of(3), {"seed": 0, "num_inference_steps": 4, "output_type": "latent"}
    named = replace(scene, prompt=scene.prompt.upper())
    try:
        register_backbone(OwnBase())
        closed = InstanceAdapter.for_unet(network, token_dim=24, caption_dim=32, hidden_dim=40).eval()
        assert list(closed.layers) == ["block"] and not len(closed.scaleu)
        pipe = InstanceDiffusionPipeline(**parts, adapter=closed)
        pipe.set_progress_bar_config(disable=True)
        without = pipe(replace(scene, instances=()), mis_fraction=0.0, **call).latents
        assert torch.allclose(pipe(scene, mis_fraction=0.0, **call).latents, without, atol=1e-5)
        pipe.adapter = tiny_adapter(network)
        told = pipe(scene, **call).latents
        assert (told - without).abs().max() > 1e-2
        assert torch.equal(pipe(named, **call).latents, told)
        moved = replace(scene, instances=(replace(scene.instances[0], box=Box(0.5, 0.5, 1, 1)), *scene.instances[1:]))
        assert (pipe(moved, instance_mask="grounding", **call).latents - told).abs().max() > 1e-3
        both = pipe([moved, scene], **call).latents
        assert torch.allclose(both[1], told[0], atol=1e-4)
    finally:
        BACKBONES.pop("own")
    with pytest.raises(ModelError, match="a OwnNetwork is no UNet2DConditionModel"):
        InstanceDiffusionPipeline(**parts, adapter=None)
