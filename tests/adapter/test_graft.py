"""The graft leaves a stock UNet stock: names, copies, removal, other shapes."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.conditioning import LocationTensors
from instancediffusion.errors import ModelError, SettingsError
from tests.tiny import random_locations, tiny_adapter, tiny_unet


def call(unet, x, grounding=None, seed=5):
    context = torch.randn(len(x), 6, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(seed))
    kwargs = {} if grounding is None else {"cross_attention_kwargs": {"grounding": grounding}}
    with torch.no_grad():
        return unet(x, 500, encoder_hidden_states=context, **kwargs).sample


@pytest.fixture
def unet():
    return tiny_unet()


@pytest.fixture
def x():
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def grounding_of(adapter, batch=2, slots=3, **options):
    captions = torch.randn(batch, slots, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return adapter(random_locations(batch, slots), captions, **options)


def test_new_adapter_changes_nothing(unet, x):
    """Gates and ScaleU start neutral, so a fresh adapter is the base model."""
    before = call(unet, x)
    adapter = InstanceAdapter.for_unet(unet, token_dim=24, caption_dim=32, hidden_dim=40)
    adapter.graft(unet)
    # Up to rounding: a grafted UNet's convolutions are computed in other ways.
    torch.testing.assert_close(call(unet, x, grounding_of(adapter)), before, atol=1e-5, rtol=0)


def test_trained_adapter_changes_the_picture(unet, x):
    adapter = tiny_adapter(unet)
    before = call(unet, x)
    adapter.graft(unet)
    plain, grounded = call(unet, x), call(unet, x, grounding_of(adapter))
    assert (plain - before).abs().max() > 1e-3  # ScaleU alone
    assert (grounded - plain).abs().max() > 1e-3


def test_remove_restores_the_stock_unet(unet, x):
    before, classes = call(unet, x), [type(m) for m in unet.modules()]
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    adapter.remove()
    assert [type(m) for m in unet.modules()] == classes
    assert torch.equal(call(unet, x), before)
    adapter.graft(unet)  # and it can be put on again


def test_parameter_names_stay_stock(unet):
    names = list(unet.state_dict())
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    assert list(unet.state_dict()) == names
    assert unet.load_state_dict(tiny_unet(seed=3).state_dict()).missing_keys == []


def test_scale_zero_skips_the_layers(unet, x, monkeypatch):
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    grounding = grounding_of(adapter)
    expected = call(unet, x)
    for layer in adapter.layers.values():
        monkeypatch.setattr(layer, "forward", lambda *_: pytest.fail("computed at scale 0"))
    assert torch.equal(call(unet, x, grounding.scaled(0)), expected)


def test_attention_processors_can_be_replaced(unet, x):
    """Other code sets processors on the UNet; the graft must not live in them."""
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    grounding = grounding_of(adapter)
    expected = call(unet, x, grounding)
    unet.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(call(unet, x, grounding), expected, atol=1e-5, rtol=1e-4)


def test_copy_of_a_grafted_unet_works(unet, x):
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    grounding = grounding_of(adapter)
    twin = copy.deepcopy(unet)
    assert torch.equal(call(twin, x, grounding), call(unet, x, grounding))


def test_gradient_checkpointing_gives_the_same_gradients(x):
    gradients = []
    for checkpointing in (False, True):
        unet = tiny_unet()
        adapter = tiny_adapter(unet)
        adapter.graft(unet)
        unet.train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        grounding = adapter(random_locations(2, 3), torch.ones(2, 3, 32), instance_mask="grounding")
        context = torch.ones(2, 6, 32)
        unet(
            x, 500, encoder_hidden_states=context, cross_attention_kwargs={"grounding": grounding}
        ).sample.sum().backward()
        gradients.append({name: p.grad.clone() for name, p in adapter.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_every_parameter_learns(unet, x):
    """A parameter without a gradient is one the data flow forgot."""
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    places = random_locations(2, 3)
    for kind in places.present:
        places.present[kind][0] = True
        places.present[kind][1] = kind == "box"
    grounding = adapter(places, torch.ones(2, 3, 32))
    unet(
        x, 500, encoder_hidden_states=torch.ones(2, 6, 32), cross_attention_kwargs={"grounding": grounding}
    ).sample.sum().backward()
    silent = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_second_adapter_is_refused(unet):
    tiny_adapter(unet).graft(unet)
    with pytest.raises(ModelError, match="grafted on it already"):
        tiny_adapter(unet).graft(unet)


def test_other_shape_is_refused(unet):
    other = tiny_unet(
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
    )
    with pytest.raises(ModelError, match="not those of the adapter"):
        tiny_adapter(unet).graft(other)


def test_wrong_batch_size_is_refused(unet, x):
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    with pytest.raises(ModelError, match="3 images, the latents are 2"):
        call(unet, x, grounding_of(adapter, batch=3))


def test_unknown_mask_rule_is_refused(unet):
    with pytest.raises(SettingsError, match="choose one of none, grounding"):
        grounding_of(tiny_adapter(unet), instance_mask="boxes")


def test_sdxl_shape(x):
    """Several transformer layers a block, none at the finest level, extra embeddings, linear projections."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
        cross_attention_dim=32,
        norm_num_groups=16,
    ).eval()
    adapter = tiny_adapter(unet)
    assert len(adapter.layers) == (2 * 2 + 2 * 3) + 3 + (3 * 3 + 3 * 2)
    adapter.graft(unet)
    added = {"text_embeds": torch.ones(2, 16), "time_ids": torch.ones(2, 6)}
    context = torch.ones(2, 6, 32)

    def run(**kwargs):
        with torch.no_grad():
            return unet(x, 500, encoder_hidden_states=context, added_cond_kwargs=added, **kwargs).sample

    grounded = run(cross_attention_kwargs={"grounding": grounding_of(adapter)})
    assert (grounded - run()).abs().max() > 1e-4


def test_save_and_load(unet, x, tmp_path):
    adapter = tiny_adapter(unet)
    adapter.save_pretrained(tmp_path)
    loaded = InstanceAdapter.from_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    assert loaded.state_dict().keys() == adapter.state_dict().keys()
    adapter.graft(unet)
    expected = call(unet, x, grounding_of(adapter))
    adapter.remove()
    loaded.graft(unet)
    torch.testing.assert_close(call(unet, x, grounding_of(loaded)), expected, atol=1e-5, rtol=0)


def test_no_instances(unet, x):
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    with torch.no_grad():
        grounding = adapter(LocationTensors.empty(2), torch.zeros(2, 0, 32))
    assert torch.isfinite(call(unet, x, grounding)).all()


def test_it_knows_which_unet_it_is_on(unet):
    adapter, other = tiny_adapter(unet), tiny_unet()
    assert not adapter.grafted_on(unet)
    adapter.graft(unet)
    assert adapter.grafted_on(unet)
    assert not adapter.grafted_on(other)
    adapter.remove()
    assert not adapter.grafted_on(unet)


def test_a_copy_is_grafted_nowhere(unet, x):
    """A copied adapter once said it was grafted, and its remove() stripped the original's UNet."""
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    expected = call(unet, x, grounding_of(adapter))
    twin = copy.deepcopy(adapter)
    assert not twin.grafted
    twin.remove()
    assert torch.equal(call(unet, x, grounding_of(adapter)), expected)
    adapter.remove()
    twin.graft(unet)
    torch.testing.assert_close(call(unet, x, grounding_of(twin)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [{"block_out_channels": (32, 96)}, {"attention_head_dim": 8}])
def test_same_blocks_of_other_widths_are_refused(unet, config):
    with pytest.raises(ModelError, match=r"channels"):
        tiny_adapter(unet).graft(tiny_unet(**config))
