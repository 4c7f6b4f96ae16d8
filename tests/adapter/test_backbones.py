"""Every base model keeps the same laws: grafted and closed it is the base, open it is told the layout."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXTransformer2DModel
from diffusers.models.transformers.transformer_prx import PRXBlock
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, T5GemmaConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from instancediffusion.adapter import InstanceAdapter, graft, grounding
from instancediffusion.adapter.backbones import BACKBONES, backbone_of, core_network
from instancediffusion.conditioning import LocationTensors
from instancediffusion.errors import ModelError
from instancediffusion.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.denoiser import Contexts, NetworkDenoiser
from instancediffusion.sampling import Branch
from tests.tiny import random_locations, tiny_adapter, tiny_unet, tiny_xl_unet

TEXT = 32


def tiny_prx(seed=0, **config):
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 4, "axes_dim": [4, 4], "depth": 2}
    made = PRXTransformer2DModel(**{"in_channels": 4, "context_in_dim": TEXT, **size, **config})
    with torch.no_grad():  # a new one does not attend at all: its modulation is 0
        for block in made.blocks:
            block.modulation.lin.weight.normal_(0, 0.3)
            block.modulation.lin.bias.normal_(0, 0.5)
    return made.eval()


MADE = {
    "sd15": tiny_unet,
    "sd2": lambda seed=0: tiny_unet(seed, cross_attention_dim=1024, use_linear_projection=True),
    "sdxl": tiny_xl_unet,
    "prx": tiny_prx,
}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(2, 4, 16, 16)


def texts_of(network):
    """Context, arguments that go with it, and the same by hand for the stock network."""
    backbone = backbone_of(network)
    context, pooled = drawn(2, 6, backbone.context_dim(network), seed=5), None
    by_hand = {}
    if (width := backbone.pooled_dim(network)) is not None:
        pooled = drawn(2, width, seed=6)
        sizes = torch.tensor([[64.0, 48, 0, 0, 64, 48]]).expand(2, -1)
        by_hand = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    return context, backbone.text_inputs(context, None, pooled, (64, 48)), by_hand


def stock(network, x=X):
    """As diffusers' own pipelines call it."""
    context, _, by_hand = texts_of(network)
    time = torch.full((len(x),), 0.5) if isinstance(network, PRXTransformer2DModel) else 500
    with torch.no_grad():
        return network(x, time, encoder_hidden_states=context, **by_hand).sample


def call(network, told, x=X):
    context, inputs, _ = texts_of(network)
    with torch.no_grad():
        return backbone_of(network).call(network, x, torch.tensor(500), context, told, inputs=inputs)


def ground(adapter, locations=None, captions=None, **options):
    with torch.no_grad():
        return adapter(
            random_locations(2, 3) if locations is None else locations,
            drawn(2, 3, 32, seed=9) if captions is None else captions,
            **options,
        )


@pytest.fixture(params=MADE)
def network(request):
    made = MADE[request.param]()
    assert backbone_of(made).name == request.param
    return made


def test_grafted_and_closed_it_is_the_base(network):
    """Bit for bit where nothing is told; new gates and ScaleU are neutral; taken off, nothing is left."""
    before, names, classes = stock(network), list(network.state_dict()), [type(part) for part in network.modules()]
    adapter = InstanceAdapter.for_unet(network, token_dim=24, caption_dim=32, hidden_dim=40)
    assert bool(len(adapter.scaleu)) == hasattr(network, "up_blocks")
    adapter.graft(network)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(stock(network), before, **close)
    torch.testing.assert_close(call(network, ground(adapter)), before, **close)
    assert list(network.state_dict()) == names
    adapter.check_on(network)
    adapter.remove()
    assert [type(part) for part in network.modules()] == classes
    assert torch.equal(stock(network), before)


def test_open_it_is_told_the_layout(network, monkeypatch):
    adapter = tiny_adapter(network)
    adapter.graft(network)
    locations = random_locations(2, 3, masks=False)
    options = {"locations": locations, "instance_mask": "grounding"}
    plain, told = call(network, ground(adapter, **options).scaled(0)), call(network, ground(adapter, **options))
    assert (told - plain).abs().max() > 1e-3
    moved = replace(locations, boxes=locations.boxes.flip(1))
    assert (call(network, ground(adapter, moved, instance_mask="grounding")) - told).abs().max() > 1e-4
    order, captions = torch.tensor([2, 0, 1]), drawn(2, 3, 32, seed=9)
    turned = {
        name: value[:, order] if isinstance(value, torch.Tensor) else value for name, value in vars(locations).items()
    }
    turned["present"] = {kind: flags[:, order] for kind, flags in locations.present.items()}
    again = ground(adapter, LocationTensors(**turned), captions[:, order], instance_mask="grounding")
    torch.testing.assert_close(call(network, again), told, atol=2e-5, rtol=0)
    nothing = ground(adapter, LocationTensors.empty(2), torch.zeros(2, 0, 32))
    assert torch.isfinite(call(network, nothing)).all()
    known = ground(adapter, **options).on_maps(backbone_of(network).map_sizes(network, 16, 16))
    monkeypatch.setattr(grounding, "attention_bias", None)  # nothing of the maps is computed in the call
    assert torch.equal(call(network, known), told)


def test_copies_files_and_other_batches(network, tmp_path):
    before, adapter = stock(network), tiny_adapter(network)
    adapter.graft(network)
    told = ground(adapter)
    expected = call(network, told)
    twin = copy.deepcopy(network)
    assert torch.equal(call(twin, told), expected)
    other = tiny_adapter(twin, seed=3)
    other.graft(twin)  # what the copy carried makes way
    assert not torch.allclose(call(twin, ground(other)), expected, atol=1e-3)
    other.remove()
    assert torch.equal(stock(twin), before) and torch.equal(call(network, told), expected)
    with pytest.raises(ModelError, match="3 images, the latents are 2"):
        call(network, ground(adapter, random_locations(3, 3), drawn(3, 3, 32)))
    with pytest.raises(ModelError, match="grafted on it already"):
        tiny_adapter(network).graft(network)
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path)
    adapter.remove()
    adapter.graft(loaded.eval())
    torch.testing.assert_close(call(loaded, told), expected, atol=1e-5, rtol=0)


def test_gradient_checkpointing_gives_the_same_gradients():
    """The grounding travels with a block's arguments, and so is there when the block is computed again."""
    found = []
    for checkpointing in (False, True):
        network = tiny_prx()
        adapter = tiny_adapter(network)
        adapter.graft(network)
        network.train()
        if checkpointing:
            network.enable_gradient_checkpointing()
        grounding = adapter(random_locations(2, 3), drawn(2, 3, 32, seed=9), instance_mask="grounding")
        context, _, _ = texts_of(network)
        backbone_of(network).call(network, X, torch.tensor(500), context, grounding).square().sum().backward()
        found.append({name: p.grad for name, p in adapter.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_an_instance_acts_where_it_is():
    """Of a transformer of one block that attends to nothing, only visual tokens in the box can change."""
    network = tiny_prx(depth=1)
    with torch.no_grad():
        network.blocks[0].modulation.lin.weight.zero_()
        network.blocks[0].modulation.lin.bias.zero_()
    adapter = tiny_adapter(network, segmentation=None)
    adapter.graft(network)
    locations = LocationTensors.empty(2, 1)
    locations.used[:], locations.present["box"][:] = True, True
    locations.boxes[:] = torch.tensor([0.25, 0.5, 0.75, 1.0])
    with torch.no_grad():  # what visual tokens do among themselves is the same for both captions
        one, other = (
            call(network, ground(adapter, locations, drawn(2, 1, 32, seed=seed), instance_mask="grounding"))
            for seed in (1, 2)
        )
    changed = ((one - other).abs().amax((0, 1)) > 1e-6).nonzero()
    assert changed.amin(0).tolist() == [8, 4] and changed.amax(0).tolist() == [15, 11]


def test_patched_blocks_of_a_transformer_are_named():
    network = tiny_prx()
    adapter = tiny_adapter(network)
    network.blocks[1].__class__ = type("FastBlock", (PRXBlock,), {})
    with pytest.raises(ModelError, match=r"blocks\.1 \(FastBlock of .*is not a stock block of PRX"):
        adapter.graft(network)
    network.blocks[1].__class__ = PRXBlock
    adapter.graft(network)
    network.blocks[1].__class__ = PRXBlock
    with pytest.raises(ModelError, match=r"PRXBlock of .* stands in the place of blocks\.1"):
        adapter.check_on(network)


@pytest.fixture(params=["left", "right"])
def prx_pipeline(request):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "red", "cat", "on", "the", "mat"])}
    spelling = Tokenizer(WordLevel(words, "[UNK]"))
    spelling.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelling,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=8,
        padding_side=request.param,
    )
    torch.manual_seed(4)
    module = {"vocab_size": len(words), "hidden_size": TEXT, "intermediate_size": 48, "num_hidden_layers": 2}
    module |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    encoder = T5GemmaEncoder(T5GemmaConfig(encoder=module, decoder=module, vocab_size=len(words)).encoder).eval()
    made = PRXPipeline(
        transformer=tiny_prx(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        vae=AutoencoderKL(),
    )
    made.text_preprocessor.clean_text = str.lower  # what it cleans texts with is no dependency
    return made


def test_texts_and_time_of_a_transformer_are_those_of_its_pipeline(prx_pipeline):
    """Texts of different lengths in one call, against the stock pipeline's padded texts and its time from 0 to 1."""
    network, backbone = prx_pipeline.transformer, backbone_of(prx_pipeline.transformer)
    prompts = ["a red cat on the mat", "cat", "the mat"]
    with torch.no_grad():
        padded, mask, _, _ = prx_pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
        bank = backbone.encode(prx_pipeline, [*prompts, "cat"], captions=["cat"])
        expected = network(X[:1].expand(3, -1, -1, -1), torch.full((3,), 0.25), padded, attention_mask=mask).sample
    assert bank.lengths == (6, 1, 2) and bank.row == {text: row for row, text in enumerate(prompts)}
    torch.testing.assert_close(bank.pooled[2], padded[2][mask[2]].mean(0))
    adapter = tiny_adapter(network)
    adapter.graft(network)
    groundings = [ground(adapter, random_locations(1, 3, seed), drawn(1, 3, 32)) for seed in range(3)]
    denoiser = NetworkDenoiser(
        network,
        Contexts(bank.contexts, bank.lengths),
        groundings,
        lambda branch: (branch.image, branch.image),
        grounding_scales=(0.0, 1.0),
    )
    branches = [Branch(image) for image in range(3)]
    with torch.no_grad():
        found = denoiser.bind(branches)(X[:1].expand(3, -1, -1, -1), torch.tensor(250.0), 0)
        told = denoiser.bind(branches)(X[:1].expand(3, -1, -1, -1), torch.tensor(250.0), 1)
        alone = denoiser.bind(branches[2:])(X[:1], torch.tensor(250.0), 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (told - found).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(told[2:], alone, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="clip_skip: PRX"):
        backbone.encode(prx_pipeline, ["cat"], clip_skip=1)


def test_the_pipeline_says_what_it_does_not_draw_with(prx_pipeline, monkeypatch):
    monkeypatch.setattr(type(BACKBONES["prx"]), "in_pipeline", False)
    parts = {name: getattr(prx_pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    with pytest.raises(ModelError, match=r"unet: a PRXTransformer2DModel is of PRX: adapters go on it, and this pipe"):
        InstanceDiffusionPipeline(unet=prx_pipeline.transformer, adapter=None, **parts)
    with pytest.raises(
        ModelError, match=r"unet: a Linear is the network of no base .*\(Stable Diffusion 1\.x, .*PRX\)"
    ):
        InstanceAdapter.for_unet(torch.nn.Linear(2, 2))


def test_names_of_before_warn():
    with pytest.warns(DeprecationWarning, match=r"graft\.core_unet is instancediffusion\.adapter\.backbones"):
        assert graft.core_unet is core_network
