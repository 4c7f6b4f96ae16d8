from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn import functional
from transformers import CLIPTokenizer

from instancediffusion.errors import SettingsError
from instancediffusion.training.attention import WrittenOutAttention
from instancediffusion.training.config import DiffusionConfig, OptimiserConfig, Recipe, build
from instancediffusion.training.ema import Ema
from instancediffusion.training.naming import NamingTask
from instancediffusion.training.networks import build_unet
from instancediffusion.training.objective import Objective, scheduler_config
from instancediffusion.training.optimisers import optimiser
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.task import step_seed
from instancediffusion.training.text_model import TextSide, build_text_model
from instancediffusion.training.tokenizer import train_tokenizer

TEXTS = ["a red balloon", "two yellow birds facing left", "a balloon in front of a castle", "birds behind a red castle"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocabulary=600, length=12)


def test_words_of_the_corpus_are_single_tokens_and_any_word_encodes(tokenizer):
    assert len(tokenizer("balloon castle birds").input_ids) == 3 + 2
    for text in ("zebra", "crème brûlée", "日本", "xyzzy42"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).replace(" ", "") == text.replace(
            " ", ""
        )


def test_tokenizer_is_the_same_for_any_order_of_texts_and_after_saving(tokenizer, tmp_path):
    again = train_tokenizer(TEXTS[::-1], vocabulary=600, length=12)
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 12
    assert loaded(TEXTS).input_ids == tokenizer(TEXTS).input_ids


def test_vocabulary_has_its_limit(tokenizer):
    assert len(train_tokenizer(TEXTS, vocabulary=520, length=12)) == 520
    with pytest.raises(SettingsError, match="at least 514"):
        train_tokenizer(TEXTS, vocabulary=100, length=12)


def test_caption_features_do_not_depend_on_the_other_captions(tokenizer, recipe):
    torch.manual_seed(0)
    side = TextSide(tokenizer, build_text_model(recipe.text, tokenizer).eval())
    with torch.no_grad():
        pair = side.captions([["a red balloon", "birds"], ["two yellow birds facing left"]], 3)
        alone = side.captions([["birds"]], 1)
        whole = side.model(tokenizer("birds", padding="max_length", return_tensors="pt").input_ids).pooler_output
    torch.testing.assert_close(pair[0, 1], alone[0, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone[0, 0], whole[0], atol=1e-6, rtol=0)
    assert not pair[1, 1:].any() and not pair[0, 2].any()


def test_text_model_learns_to_tell_texts_apart(tokenizer, recipe):
    """Learned along with the denoiser, captions of different objects were seen to become one and the same."""
    run = OptimiserConfig(steps=150, batch_size=16, warmup=5, learning_rate=1e-2, precision="fp32")
    task = NamingTask(replace(recipe.text, width=32, optimiser=run), TEXTS, tokenizer)
    adam = optimiser(task.modules, run)
    losses = []
    for step in range(run.steps):
        loss, numbers = task.loss(step)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0] and numbers["texts_read_without_error"] == 1.0
    with torch.no_grad():
        features = task.text.captions([TEXTS], len(TEXTS))[0]
    likeness = functional.normalize(features - features.mean(0), dim=1)
    assert (likeness @ likeness.T).fill_diagonal_(0).max() < 0.5


def test_velocity_and_noising_agree_with_a_stock_scheduler():
    objective = Objective(DiffusionConfig())
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **scheduler_config(DiffusionConfig()))
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 3, 4, 4, generator=generator)
    t = torch.tensor([0, 10, 500, 900, 999])
    x_t, v = objective.noised(x0, noise, t)
    torch.testing.assert_close(x_t, scheduler.add_noise(x0, noise, t), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(v, scheduler.get_velocity(x0, noise, t), atol=1e-5, rtol=1e-4)
    alpha, sigma = objective.alphas_cumprod[t].sqrt(), (1 - objective.alphas_cumprod[t]).sqrt()
    recovered = alpha.view(-1, 1, 1, 1) * x_t - sigma.view(-1, 1, 1, 1) * v
    torch.testing.assert_close(recovered, x0, atol=1e-5, rtol=1e-4)
    assert 0 < objective.alphas_cumprod[-1].sqrt() < 0.02


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_with_a_base_its_own_schedule_and_target_are_learned(prediction):
    schedule = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.03, "prediction_type": prediction}
    scheduler = DDIMScheduler(**schedule)
    objective = Objective(DiffusionConfig(timesteps="uniform", min_snr_gamma=5.0), schedule)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 3, 4, 4, generator=generator)
    t = torch.tensor([3, 500, 990])
    x_t, target = objective.noised(x0, noise, t)
    torch.testing.assert_close(x_t, scheduler.add_noise(x0, noise, t), atol=1e-5, rtol=1e-4)
    expected = noise if prediction == "epsilon" else scheduler.get_velocity(x0, noise, t)
    torch.testing.assert_close(target, expected, atol=1e-5, rtol=1e-4)
    # Weighted, both targets are one loss on the picture: its error times min(snr, 5) (Hang et al. 2023, section 3.4).
    signal = scheduler.alphas_cumprod[t]
    snr, wrong = signal / (1 - signal), torch.randn(x0.shape, generator=generator) * 0.01
    alpha, sigma = signal.sqrt().view(-1, 1, 1, 1), (1 - signal).sqrt().view(-1, 1, 1, 1)
    predicted = target + (-wrong * alpha / sigma if prediction == "epsilon" else -wrong / sigma)
    loss = (snr.clamp(max=5) * wrong.square().flatten(1).mean(1)).mean()
    torch.testing.assert_close(objective.loss(predicted, target, t), loss, rtol=1e-3, atol=0)
    drawn = objective.timesteps(20_000, generator).double()
    assert abs(float(drawn.mean()) - 499.5) < 8 and abs(float(drawn.std()) - 288.7) < 5


def test_a_base_that_predicts_something_else_is_refused():
    with pytest.raises(SettingsError, match="'sample'"):
        Objective(DiffusionConfig(), {"prediction_type": "sample"})


def test_timesteps_follow_the_logit_normal_law():
    objective = Objective(DiffusionConfig(logit_mean=0.2, logit_std=1.2))
    t = objective.timesteps(40_000, torch.Generator().manual_seed(0)).double() / 1000
    logits = torch.special.logit(t.clamp(1e-3, 1 - 1e-3))
    assert abs(float(logits.median()) - 0.2) < 0.03
    assert abs(float(logits.std()) - 1.2) < 0.03


def test_min_snr_weight_is_that_of_velocity_prediction():
    objective = Objective(DiffusionConfig(min_snr_gamma=5.0))
    t = torch.tensor([700])
    signal = objective.alphas_cumprod[700]
    snr = signal / (1 - signal)
    loss = objective.loss(torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), t)
    torch.testing.assert_close(loss, snr.clamp(max=5) / (snr + 1))


def test_cells_that_objects_cover_weigh_more():
    covered = torch.zeros(2, 2, 2)
    covered[0, 0, 0], covered[1, 1, 1] = 1, 0.5
    weights = Objective(DiffusionConfig(object_weight=3.0)).weights(covered)
    assert weights[0, 0, 0] / weights[0, 0, 1] == 4 and weights[1, 1, 1] / weights[0, 0, 1] == 2.5
    assert weights.mean() == pytest.approx(1)
    objective, t = Objective(DiffusionConfig()), torch.tensor([3, 700])
    predicted, target = torch.randn(2, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    plain = objective.loss(predicted, target, t)
    assert objective.loss(predicted, target, t, objective.weights(covered)) == pytest.approx(plain.item())
    only = objective.loss(predicted, target, t, torch.eye(2).expand(2, 2, 2))
    assert only == pytest.approx((predicted - target).square().mean(1).diagonal(dim1=1, dim2=2).sum().item() / 8)


def test_written_out_attention_is_attention():
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    for mask in (None, torch.randn(2, 1, 5, 7), torch.rand(2, 1, 5, 7) < 0.8):
        fused = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        with WrittenOutAttention():
            written = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(written, fused, atol=1e-5, rtol=1e-4, equal_nan=True)
    with WrittenOutAttention():
        causal = functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    torch.testing.assert_close(causal, functional.scaled_dot_product_attention(q, q, q, is_causal=True))


def test_learning_rate_rises_then_falls():
    config = OptimiserConfig(steps=100, warmup=10, learning_rate=1.0, final_rate=0.1)
    rates = [Schedule(config).learning_rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates.index(max(rates)) in (9, 10)
    assert rates[-1] == pytest.approx(0.1, abs=0.01) and np.all(np.diff(rates[10:]) <= 0)


def test_seeds_of_steps_differ():
    assert (
        len({step_seed(seed, step, purpose) for seed in range(5) for step in range(200) for purpose in range(2)})
        == 2000
    )


def test_running_mean_follows_and_gives_the_weights_back():
    module = torch.nn.Linear(2, 2)
    ema = Ema({"m": module}, 0.9)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    ema.update()  # the first update forgets nearly all of the start: decay 1/10
    with ema.applied():
        torch.testing.assert_close(module.weight.detach(), start + 0.9)
    torch.testing.assert_close(module.weight.detach(), start + 1)


def test_decoder_blocks_without_attention_leave_the_encoder_to_read_the_scene(recipe):
    config = replace(recipe.unet, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
    unet = build_unet(config, latent_channels=4, context_width=16)
    read = [bool(getattr(block, "attentions", ())) for block in (*unet.down_blocks, *unet.up_blocks)]
    assert read == [True, True, True, False]


def test_what_a_recipe_reached_changes_nothing():
    table = {"name": "a", "reached": {"command": "instancediffusion train ...", "hours": 3, "scores": {"box": 0.8}}}
    assert build(Recipe, table, "recipe") == Recipe("a") and build(Recipe, table, "recipe").reached["hours"] == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "a", "wrld": {}}, "did you mean 'world'"),
        (
            {"name": "a", "diffusion": {"optimiser": {"steps": "many"}}},
            "diffusion: optimiser: steps = 'many': expected int",
        ),
        ({"name": "a", "unet": {"block_out_channels": 3}}, "expected a list"),
        ({"name": "a", "unet": {"up_block_types": ["UpBlock2D"]}}, "one name for each of the 2 levels"),
        ({"name": "a", "unet": {"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}}, "CrossAttnUpBlock2D or UpBlock2D"),
        ({"name": "a", "locations": {"box_only": 0.9, "mask_only": 0.9}}, "sum to at most 1"),
        ({"name": "a", "diffusion": {"optimiser": {"precision": "fp16"}}}, "'bf16' or 'fp32'"),
        ({"name": "a", "diffusion": {"optimiser": {"algorithm": "sgd"}}}, "'adamw' or 'muon'"),
        ({"name": "a", "diffusion": {"object_weight": -1}}, "object_weight = -1.0: expected at least 0"),
        ({"name": "a", "diffusion": {"base": "mini"}}, "train = 'adapter'"),
        ({"name": "a", "diffusion": {"train": "adapter"}}, "give both"),
        ({"name": "a", "diffusion": {"noise_draws": 3}}, "divisor of batch_size = 16"),
        ({"name": "a", "diffusion": {"stages": [{"from_step": 5, "sample_size": 8}]}}, "rising numbers"),
        ({"name": "a", "diffusion": {"stages": [{"from_step": 0}]}}, "sample_size = 0"),
        ({}, "name"),
    ],
)
def test_bad_recipes_are_refused_with_the_setting_and_the_fix(table, message):
    with pytest.raises(SettingsError, match=message):
        build(Recipe, table, "recipe")
