"""The layout acts or the call fails: whatever was done to the UNet, the adapter, or a copy of them."""

import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch
from accelerate import cpu_offload
from diffusers.models.attention import BasicTransformerBlock
from peft import LoraConfig, get_peft_model
from torch import nn

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Scene
from instancediffusion.errors import ModelError, SettingsError
from tests.tiny import tiny_adapter, tiny_unet
from tests.tiny_pipeline import scene_of, tiny_pipeline

FAST = {"num_inference_steps": 2, "guidance_scale": 2.0, "mis_fraction": 0.0, "seed": 0}
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def latents(pipe, scene=None, **options):
    return pipe(scene or scene_of(2), output_type="latent", **{**FAST, **options}).images


def moved(scene):
    first = replace(scene.instances[0], box=Box(0.5, 0.5, 1.0, 1.0))
    return replace(scene, instances=(first, *scene.instances[1:]))


def acts(pipe):
    """Whether the place of an instance makes a difference."""
    return (latents(pipe) - latents(pipe, moved(scene_of(2)))).abs().max() > 1e-5


@pytest.fixture
def own(tmp_path):
    return tiny_pipeline(tmp_path)


class Around(nn.Module):
    """What a data-parallel trainer puts around a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def lora(unet):
    return get_peft_model(unet, LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=True))


@pytest.mark.parametrize("around", [Around, lora, lambda unet: torch.compile(unet, backend="eager")])
def test_what_is_put_around_the_unet(own, around):
    expected = latents(own)
    own.unet = around(own.unet)
    torch.testing.assert_close(latents(own), expected, **TOLERANCE)
    assert own.adapter.grafted_on(own.unet)


def test_offload_hooks_before_and_after_the_graft(own):
    expected = latents(own)
    cpu_offload(own.unet, execution_device=torch.device("cpu"))
    torch.testing.assert_close(latents(own), expected, **TOLERANCE)
    hooked = tiny_unet()
    cpu_offload(hooked, execution_device=torch.device("cpu"))
    own.unet = hooked
    torch.testing.assert_close(latents(own), expected, **TOLERANCE)


def test_another_unet_is_grafted_at_once(own):
    first, other = own.unet, tiny_unet(seed=5)
    before = latents(own)
    own.unet = other
    assert own.adapter.grafted_on(other) and not own.adapter.grafted_on(first)
    assert acts(own)
    assert (latents(own) - before).abs().max() > 1e-3
    own.unet = first
    assert torch.equal(latents(own), before)
    narrow = tiny_unet(block_out_channels=(32, 96))
    with pytest.raises(ModelError, match="channels"):
        own.unet = narrow
    assert own.unet is first and torch.equal(latents(own), before)


def test_another_adapter_is_grafted_at_once(own):
    before, first = latents(own), own.adapter
    own.adapter = tiny_adapter(own.unet, seed=7)
    assert acts(own) and not first.grafted
    assert (latents(own) - before).abs().max() > 1e-3
    own.adapter = first
    assert torch.equal(latents(own), before)


def test_a_unet_that_carries_no_adapter_or_another_is_refused(own, tmp_path):
    own.adapter.remove()
    with pytest.raises(ModelError, match=r"carries no adapter.*adapter\.graft"):
        latents(own)
    own.adapter.graft(own.unet)
    assert acts(own)
    other = tiny_pipeline(tmp_path / "other")
    with pytest.raises(ModelError, match="grafted on it already"):
        own.unet = other.unet
    own.adapter.remove()
    replacement = tiny_adapter(own.unet, seed=8)
    replacement.graft(own.unet)
    with pytest.raises(ModelError, match="carries another adapter"):
        latents(own)
    left = other.unet
    del other  # nobody could take its adapter off any more
    own.adapter, own.unet = replacement, left
    assert acts(own)


def test_patched_blocks_are_named(own):
    """Token merging puts classes of its own in the place of blocks, before or after the graft."""

    class ToMeBlock(type(own.unet.mid_block.attentions[0].transformer_blocks[0])):
        """As tomesd makes it: a subclass of the block it finds."""

    blocks = [module for module in own.unet.modules() if isinstance(module, BasicTransformerBlock)]
    stock = type(blocks[0])
    blocks[0].__class__ = ToMeBlock
    with pytest.raises(ModelError, match="ToMeBlock of"):
        latents(own)
    blocks[0].__class__ = stock
    assert acts(own)
    patched = tiny_unet()
    block = next(module for module in patched.modules() if isinstance(module, BasicTransformerBlock))
    block.__class__ = type("ToMeBlock", (BasicTransformerBlock,), {})
    with pytest.raises(ModelError, match="ToMeBlock"):
        own.unet = patched


def test_layers_that_do_not_run_are_noticed(own):
    """A patch of a whole block's call, which no look at classes tells."""
    attentions = own.unet.down_blocks[0].attentions[0]
    attentions.forward = lambda hidden_states, **_: (hidden_states,)
    with pytest.raises(ModelError, match="1 of 7 gated layers did not run"):
        latents(own)
    del attentions.forward
    assert acts(own)


def test_merged_tokens_are_refused(own):
    block = own.unet.down_blocks[0].attentions[0].transformer_blocks[0]
    inner = block.attn1.forward
    block.attn1.forward = lambda hidden_states, **options: inner(hidden_states[:, ::2], **options)
    with pytest.raises(ModelError, match="128 of 256 visual tokens, as token merging"):
        latents(own)


def test_self_attention_in_tiles(own):
    """As HyperTile does it: `forward` of the self-attention sees tiles. The gated layers see the whole."""
    attention = own.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    inner = attention.forward

    def tiled(hidden_states, **options):
        batch, cells, channels = hidden_states.shape
        return inner(hidden_states.reshape(batch * 2, cells // 2, channels), **options).reshape(batch, cells, channels)

    before = latents(own)
    attention.forward = tiled
    assert acts(own)
    assert (latents(own) - before).abs().max() > 1e-4
    del attention.forward
    assert torch.equal(latents(own), before)


def deep_cache(pipe, interval=2):
    """The part of DeepCache that matters: features of the middle block kept from one call to the next."""
    unet, kept = pipe.unet, {}
    forward, middle = unet.forward, unet.mid_block.forward

    def wrapped(*args, **kwargs):
        kept["step"] = list(pipe.scheduler.timesteps).index(args[1].item())
        return forward(*args, **kwargs)

    def cached(*args, **kwargs):
        if kept["step"] % interval == 0:
            kept["features"] = middle(*args, **kwargs)
        return kept["features"]

    wrapped.__module__ = "DeepCache.extension.deepcache"
    unet.forward, unet.mid_block.forward = wrapped, cached


def test_features_kept_between_calls(own):
    deep_cache(own)
    call = {"scheduler": "ddim", "num_inference_steps": 4}
    assert (latents(own, **call) - latents(own, moved(scene_of(2)), **call)).abs().max() > 1e-3
    for options, remedy in (
        ({"mis_fraction": 0.5}, "mis_fraction=0"),
        ({"seed": [0, 1], "max_batch_rows": 2}, "max_batch_rows=4"),
        ({"scene": [scene_of(1), scene_of(1, 128, 64)]}, "one size"),
    ):
        with pytest.raises(SettingsError, match=f"DeepCache.*{remedy}"):
            latents(own, **{**call, **options})


def changed(adapter):
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(1.3)


def by_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)), by_torch]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_pipeline_stands_by_itself(own, copied):
    expected = latents(own)
    twin = copied(own)
    assert twin.adapter.grafted_on(twin.unet) and not own.adapter.grafted_on(twin.unet)
    assert torch.equal(latents(twin), expected)
    changed(twin.adapter)
    assert (latents(twin) - expected).abs().max() > 1e-3
    assert torch.equal(latents(own), expected)
    twin.adapter.remove()
    assert acts(own) and not twin.adapter.grafted
    twin.adapter.graft(twin.unet)
    own.adapter.remove()
    assert acts(twin)


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_unet_stands_by_itself(own, copied):
    """ScaleU of the copy was the original's own once."""
    expected = latents(own)
    twin = copied(own.unet)
    changed(own.adapter)
    assert (latents(own) - expected).abs().max() > 1e-3
    fresh = InstanceDiffusionPipeline(**{**own.components, "unet": twin, "adapter": tiny_adapter(twin, seed=3)})
    fresh.set_progress_bar_config(disable=True)
    assert acts(fresh)  # what the copy carried has made way


def test_a_saved_pipeline_is_that_of_a_pipeline_without_a_graft(own, tmp_path):
    own.unet.save_pretrained(tmp_path / "grafted")
    own.adapter.remove()
    own.unet.save_pretrained(tmp_path / "stock")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "grafted" / name).read_bytes() == (tmp_path / "stock" / name).read_bytes()


def test_blocks_compiled_one_by_one(own):
    expected = latents(own)
    own.unet.compile_repeated_blocks(backend="eager")
    torch.testing.assert_close(latents(own), expected, **TOLERANCE)


def test_a_scene_without_instances_needs_no_layers(own):
    """The layers run for it, too, with the null tokens it was trained with."""
    plain = Scene("x", (), 64, 64)
    assert torch.isfinite(latents(own, plain)).all()
    placed = Scene("x", (Instance("a cat", box=Box(0, 0, 0.5, 0.5)),), 64, 64)
    assert (latents(own, plain) - latents(own, placed)).abs().max() > 1e-3
