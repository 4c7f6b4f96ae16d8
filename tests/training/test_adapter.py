"""An adapter for a finished model: the base stays, the adapter learns."""

from dataclasses import replace

import pytest
import torch
from tests.tiny_pipeline import scene_of

from instancediffusion.checkpoints.cards import weights_sha256
from instancediffusion.errors import CheckpointError, ModelError
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.export import export

from .conftest import home_made_world


@pytest.fixture(scope="module")
def adapting(recipe, base):
    optimiser = replace(recipe.diffusion.optimiser, learning_rate=3e-3, weight_decay=0.0, ema_decay=0.9)
    config = replace(
        recipe.diffusion, base=str(base), train="adapter", timesteps="uniform", drop_grounding=0.0, optimiser=optimiser
    )
    return replace(recipe, diffusion=config, adapter={"hidden_dim": 16, "frequencies": 4, "slots": 8})


@pytest.fixture(scope="module")
def run(adapting, base, tmp_path_factory):
    run = tmp_path_factory.mktemp("adapting")
    stages.scenes(replace(adapting, world=replace(adapting.world, scenes=8)), run, home_made_world(64))
    stages.latents(adapting, run)
    return run


def errors(task, steps=range(100, 108)):
    with torch.no_grad():
        return sum(task.loss(step)[0].item() for step in steps) / len(steps)


def test_stages_are_those_that_are_left(adapting, recipe):
    assert stages.names(adapting) == ("scenes", "latents", "diffusion", "export")
    # Without box-relative values, there is nothing that the stage "relative" could train.
    assert stages.names(recipe) == tuple(name for name in stages.STAGES if name not in ("relative", "words"))


def test_latents_are_the_bases(run, adapting, base):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(base / "vae")
    cache = stages.SceneCache(run / "scenes", need_latents=True)
    x = torch.from_numpy(cache.image(3).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = (vae.encode(x).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    torch.testing.assert_close(torch.from_numpy(cache.rows("latents", [3])).float(), expected, atol=5e-3, rtol=2e-3)


def test_a_new_adapter_leaves_the_base_as_it_is(run, adapting):
    task = stages.diffusion_task(adapting, run)
    with_adapter = errors(task)
    task.adapter.remove()
    without = sum(_plain_loss(task, step) for step in range(100, 108)) / 8
    assert with_adapter == pytest.approx(without, rel=1e-6)
    assert set(task.adapter.gates().values()) == {(0.0, 0.0)}


def _plain_loss(task, step):
    task._denoise = lambda x, t, encoder_hidden_states, **_: task.unet(x, t, encoder_hidden_states)
    with torch.no_grad():
        return task.loss(step)[0].item()


def test_the_adapter_learns_and_the_base_does_not_change(run, adapting, base):
    files = weights_sha256(base)
    longer = replace(adapting.diffusion.optimiser, steps=60, log_every=20, checkpoint_every=60)
    recipe = replace(adapting, diffusion=replace(adapting.diffusion, optimiser=longer))
    before = stages.diffusion_task(recipe, run)
    start = {name: value.clone() for name, value in before.adapter.state_dict().items()}
    unet = {name: value.clone() for name, value in before.unet.state_dict().items()}
    untrained = errors(before)

    from instancediffusion.training.fit import fit

    task = stages.diffusion_task(recipe, run)
    fit(task, longer, run / "long", {"diffusion": {}})
    assert all(torch.equal(value, unet[name]) for name, value in task.unet.state_dict().items())
    assert all(p.grad is None for p in [*task.unet.parameters(), *task.text.model.parameters()])
    changed = {name for name, value in task.adapter.state_dict().items() if not torch.equal(value, start[name])}
    # The segmentation input is not part of this adapter; all that is there takes part, the order of depth included.
    assert changed == set(start)
    assert errors(task) < 0.97 * untrained
    assert weights_sha256(base) == files
    state = load_checkpoint(run / "long" / "checkpoint.pt")
    assert set(state["modules"]) == {"adapter"} and len(state["ema"]["mean"]) == len(list(task.adapter.parameters()))


def test_adapter_run_resumes_exports_and_knows_its_base(run, adapting, base, tmp_path):
    torch.set_num_threads(1)
    stages.diffusion(adapting, run)
    whole = load_checkpoint(run / "diffusion" / "checkpoint.pt")["modules"]["adapter"]
    (run / "diffusion").rename(tmp_path / "whole")
    stages.diffusion(adapting, run, stop_after=3)
    stages.diffusion(adapting, run)
    broken = load_checkpoint(run / "diffusion" / "checkpoint.pt")["modules"]["adapter"]
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())

    export(adapting, run, tmp_path / "adapter")
    from instancediffusion.pipeline import InstanceDiffusionPipeline

    pipe = InstanceDiffusionPipeline.from_pretrained(base, adapter=str(tmp_path / "adapter"))
    assert pipe(scene_of(2), seed=0, num_inference_steps=2).images[0].size == (64, 64)

    task = stages.diffusion_task(adapting, run)
    with pytest.raises(CheckpointError, match="base has other weights"):
        task.load_state({"scenes": 8, "base": "another"})


def test_a_base_that_is_none_is_refused_with_what_it_lacks(adapting, run, tmp_path):
    (tmp_path / "unet").mkdir()
    other = replace(adapting, diffusion=replace(adapting.diffusion, base=str(tmp_path)))
    with pytest.raises(ModelError, match=r"no vae, text_encoder, tokenizer, scheduler; give"):
        stages.diffusion_task(other, run)
