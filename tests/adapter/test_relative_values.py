"""Box-relative values: laws of what they may and may not do. What they are worth is measured on the trained model."""

from dataclasses import replace

import pytest
import torch

from instancediffusion.adapter import Grounding
from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.relative import RELATIVE_FEATURES, relative_coordinates
from instancediffusion.conditioning.visibility import memberships, visibility
from tests.tiny import random_locations, tiny_adapter, tiny_unet

WIDTH = 24


def only(kind, locations):
    """Every instance given by this kind of location alone."""
    return {name: torch.full_like(there, name == kind) for name, there in locations.present.items()}


def predict(unet, adapter, locations, captions, scale=1.0, rule="visibility"):
    torch.manual_seed(5)
    sample = torch.randn(locations.batch_size, 4, 16, 16)
    context = torch.randn(1, 5, 32).expand(locations.batch_size, -1, -1)
    with torch.no_grad():
        grounding = adapter(locations, captions, instance_mask=rule).scaled(scale)
        kwargs = {"grounding": grounding}
        return unet(sample, 300, encoder_hidden_states=context, cross_attention_kwargs=kwargs).sample


@pytest.fixture
def model():
    unet = tiny_unet()
    adapter = tiny_adapter(unet, relative_values=WIDTH)
    adapter.graft(unet)
    return unet, adapter


@pytest.fixture
def scene():
    return random_locations(2, 3), torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(3))


def test_at_the_start_they_change_nothing(scene):
    plain, placed = tiny_unet(), tiny_unet()
    without = tiny_adapter(plain)
    within = tiny_adapter(placed, relative_values=WIDTH)
    own = within.state_dict()
    own.update(without.state_dict())
    within.load_state_dict(own)
    for layer in within.layers.values():
        torch.nn.init.zeros_(layer.relative.weight)
    without.graft(plain)
    within.graft(placed)
    torch.testing.assert_close(predict(placed, within, *scene), predict(plain, without, *scene), atol=2e-5, rtol=1e-4)


def test_they_matter_once_trained_and_only_under_the_gates(model, scene):
    unet, adapter = model
    moved = torch.nn.init.normal_
    before = predict(unet, adapter, *scene)
    with torch.no_grad():
        for layer in adapter.layers.values():
            moved(layer.relative.weight, std=3.0)
    assert (predict(unet, adapter, *scene) - before).abs().max() > 1e-3
    with torch.no_grad():
        for layer in adapter.layers.values():
            layer.alpha_attn.zero_()
    closed = predict(unet, adapter, *scene)
    with torch.no_grad():
        for layer in adapter.layers.values():
            moved(layer.relative.weight, std=3.0)
    assert torch.equal(predict(unet, adapter, *scene), closed)
    assert torch.equal(predict(unet, adapter, *scene, scale=0.0), predict(unet, adapter, *scene, scale=0.0))


def test_a_token_sees_what_the_mask_lets_it_see_of_each_instance():
    features, locations = RelativeFeatures(8, WIDTH), random_locations(1, 3)
    captions = torch.randn(1, 3, 8)
    with torch.no_grad():
        each = features(locations, captions, (4, 4))
        for rule, shares in (("visibility", visibility), ("none", memberships), ("grounding", memberships)):
            share = shares(locations, (4, 4)).flatten(2)
            by_hand = sum(share[0, i, :, None] * each[0, i] for i in range(3))
            torch.testing.assert_close(features.seen(locations, captions, (4, 4), rule)[0], by_hand)


def test_depth_order_reaches_them_under_the_rule_that_knows_it():
    features = RelativeFeatures(8, WIDTH)
    locations = random_locations(1, 2)
    both = dict.fromkeys(locations.present, torch.zeros(1, 2, dtype=torch.bool))
    locations = replace(
        locations,
        present={**both, "box": torch.ones(1, 2, dtype=torch.bool)},
        boxes=torch.tensor([[[0.0, 0.0, 0.75, 1.0], [0.25, 0.0, 1.0, 1.0]]]),
        z_order=torch.tensor([[0, 1]]),
        z_known=torch.ones(1, 2, dtype=torch.bool),
    )
    turned = replace(locations, z_order=torch.tensor([[1, 0]]))
    captions = torch.randn(1, 2, 8)
    with torch.no_grad():
        seen = [features.seen(one, captions, (4, 4), "visibility")[0] for one in (locations, turned)]
        blind = [features.seen(one, captions, (4, 4), "grounding") for one in (locations, turned)]
    middle = torch.tensor([1, 2]) + torch.tensor([[0], [4], [8], [12]])
    apart = torch.tensor([0, 3]) + torch.tensor([[0], [4], [8], [12]])
    assert not torch.isclose(seen[0][middle], seen[1][middle]).all(-1).any()
    torch.testing.assert_close(seen[0][apart], seen[1][apart])
    assert torch.equal(*blind)


def test_instances_may_come_in_any_order_and_padding_changes_nothing(model, scene):
    unet, adapter = model
    locations, captions = scene
    turned = [2, 0, 1]
    other = LocationTensors(
        **{
            name: value[:, turned] if isinstance(value, torch.Tensor) else {k: v[:, turned] for k, v in value.items()}
            for name, value in vars(locations).items()
        }
    )
    reference = predict(unet, adapter, locations, captions)
    torch.testing.assert_close(predict(unet, adapter, other, captions[:, turned]), reference, atol=2e-5, rtol=1e-4)
    padded = torch.nn.functional.pad(captions, [0, 0, 0, 2])
    torch.testing.assert_close(predict(unet, adapter, locations.pad(5), padded), reference, atol=2e-5, rtol=1e-4)


def test_an_image_of_a_batch_is_the_image_alone(model, scene):
    _, adapter = model
    locations, captions = scene
    with torch.no_grad():
        joined = adapter(locations, captions)
        again = Grounding.cat([adapter(locations.select([i]), captions[i : i + 1]) for i in range(2)])
        sides = [(16, 16), (8, 8)]
        both, parts = ([told.relative for told in g.on_maps(sides).maps] for g in (joined, again))
        last = [told.relative for told in joined.single(1).on_maps(sides).maps]
        picked = [told.relative for told in joined.on_maps(sides).select([1]).maps]
    torch.testing.assert_close(both, parts)
    torch.testing.assert_close(last, [one[1:] for one in both])
    torch.testing.assert_close(picked, [one[1:] for one in both])


def test_coordinates_follow_the_box_and_tell_what_is_not_known():
    locations = random_locations(1, 4)
    boxes = replace(locations, present=only("box", locations), boxes=torch.tensor([[[0.25, 0.25, 0.75, 0.75]] * 4]))
    seen = relative_coordinates(boxes, (4, 4))
    assert seen.shape == (1, 4, 16, RELATIVE_FEATURES)
    # A box twice as large, seen from a map of half the canvas around the same middle: the same relative place.
    large = replace(boxes, boxes=torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 4]))
    wide = relative_coordinates(large, (2, 2))
    torch.testing.assert_close(wide[0, 0, :, :16], seen[0, 0, [5, 6, 9, 10], :16])
    for flag, kind in enumerate(("box", "scribble", "point")):
        flags = relative_coordinates(replace(locations, present=only(kind, locations)), (4, 4))[..., -3:]
        assert torch.equal(flags, torch.eye(3)[flag].expand_as(flags))


@pytest.mark.parametrize("kind", ["box", "point"])
def test_an_object_looks_the_same_on_a_wide_canvas_and_on_a_square_one(kind):
    """`mini` learned on squares; on a canvas of 3:2 a panda came out as a pale block.

    Fractions of the width and of the height had counted alike, so a round object of a wide canvas was a tall one.
    """
    locations = random_locations(1, 1)
    square = replace(
        locations,
        present=only(kind, locations),
        boxes=torch.tensor([[[0.25, 0.25, 0.75, 0.75]]]),
        points=torch.tensor([[[0.5, 0.5]]]),
    )
    # 16 x 4 tokens have the area of 8 x 8, and the box covers the middle 4 x 4 tokens of either.
    wide = replace(square, boxes=torch.tensor([[[0.375, 0.0, 0.625, 1.0]]]))
    near = relative_coordinates(square, (8, 8)).view(8, 8, -1)[2:6, 2:6]
    far = relative_coordinates(wide, (4, 16)).view(4, 16, -1)[:, 6:10]
    torch.testing.assert_close(far, near)


def test_unused_slots_have_no_features():
    features = RelativeFeatures(8, WIDTH)
    locations = random_locations(1, 2).pad(3)
    assert not features(locations, torch.randn(1, 3, 8), (4, 4))[:, 2].any()
