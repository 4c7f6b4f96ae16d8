"""Stages of resolution, shares of a batch, and what may change under a run."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion.data import SceneCache
from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import check_same_recipe, load_checkpoint
from instancediffusion.training.config import OptimiserConfig, Recipe, ResolutionStage
from instancediffusion.training.latents import encode_scenes
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.task import Place

RUN = OptimiserConfig(steps=40, batch_size=6, warmup=4, learning_rate=1.0, final_rate=0.1)
GROWING = (
    ResolutionStage(0, 4, batch_size=12),
    ResolutionStage(10, 8),
    ResolutionStage(25, 16, batch_size=2, learning_rate=0.5),
)


def test_pictures_are_the_sum_of_all_batches():
    for schedule in (Schedule(RUN), Schedule(RUN, GROWING)):
        for steps in (0, 1, 10, 11, 25, 26, 40):
            assert schedule.pictures(steps) == sum(schedule.batch_size(step) for step in range(steps))


def test_stages_follow_one_cosine_with_peaks_and_warm_ups_of_their_own():
    staged, plain = Schedule(RUN, GROWING), Schedule(RUN)
    warm = [(step - start + 1) / 4 for start in (0, 10, 25) for step in range(start, start + 4)]
    steps = [step for start in (0, 10, 25) for step in range(start, start + 4)]
    for step in range(40):
        share = dict(zip(steps, warm, strict=True)).get(step, 1.0)
        peak = 0.5 if step >= 25 else 1.0
        usual = plain.learning_rate(step) / min(1.0, (step + 1) / 4)
        assert staged.learning_rate(step) == pytest.approx(usual * peak * share)


def test_shares_are_equal_and_make_the_whole():
    items = list(range(12))
    for count in (1, 2, 3, 4, 6):
        parts = [items[Place(rank=rank, count=count).share(12)] for rank in range(count)]
        assert [item for part in parts for item in part] == items and len({len(part) for part in parts}) == 1


def test_batches_that_cannot_be_shared_are_refused_with_the_fix():
    Schedule(RUN, GROWING).check_shares(2)
    with pytest.raises(SettingsError, match=r"batch_size = 2.* 3 processes.* multiple of 3"):
        Schedule(RUN, GROWING).check_shares(3)
    with pytest.raises(SettingsError, match="3 scenes cannot be shared equally by 2"):
        Schedule(RUN).check_shares(2, draws=2)


def growing(recipe):
    two = (ResolutionStage(0, 4), ResolutionStage(3, 8, batch_size=2, learning_rate=5e-4))
    return replace(recipe, diffusion=replace(recipe.diffusion, stages=two))


@pytest.fixture
def own_scenes(drawn, tmp_path, recipe):
    """A run whose scenes may be added to."""
    (tmp_path / "scenes").mkdir()
    for shard in SceneCache.paths(drawn / "scenes"):
        (tmp_path / "scenes" / shard.name).mkdir()
        for file in shard.iterdir():
            (tmp_path / "scenes" / shard.name / file.name).symlink_to(file)
    for name in ("autoencoder", "text"):
        (tmp_path / name).symlink_to(drawn / name)
    return tmp_path


def test_smaller_latents_are_those_of_smaller_pictures(own_scenes, recipe):
    with pytest.raises(SettingsError, match="latents stage first"):
        stages.diffusion_task(growing(recipe), own_scenes)
    stages.latents(growing(recipe), own_scenes)
    cache = SceneCache(own_scenes / "scenes", need_latents=["latents-004"])
    code = stages.latents_of(recipe, own_scenes)
    small = np.asarray(Image.fromarray(cache.image(5)).resize((16, 16), Image.Resampling.BOX))
    expected = code.encode(torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)
    stored = torch.from_numpy(cache.rows("latents-004", [5])).float()
    assert stored.shape == (1, 4, 4, 4)
    torch.testing.assert_close(stored, expected, atol=0.03, rtol=0.01)  # Pillow rounds to whole levels
    with pytest.raises(SettingsError, match="divisor of 8"):
        encode_scenes(code, own_scenes / "scenes", 8, [3])


def test_run_grows_at_its_step_and_resumes_on_both_sides(own_scenes, recipe):
    torch.set_num_threads(1)
    recipe = growing(recipe)
    stages.latents(recipe, own_scenes)
    task = stages.diffusion_task(recipe, own_scenes)
    seen = []
    task.unet.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    for step in range(5):
        task.loss(step)
    assert seen == [(3, 4, 4, 4)] * 3 + [(2, 4, 8, 8)] * 2

    stages.diffusion(recipe, own_scenes)
    whole = load_checkpoint(own_scenes / "diffusion" / "checkpoint.pt")
    (own_scenes / "diffusion").rename(own_scenes / "unbroken")
    for _ in range(3):
        stages.diffusion(recipe, own_scenes, stop_after=2)
    broken = load_checkpoint(own_scenes / "diffusion" / "checkpoint.pt")
    for name, value in whole["modules"]["unet"].items():
        assert torch.equal(value, broken["modules"]["unet"][name]), name
    lines = [json.loads(line) for line in (own_scenes / "diffusion" / "metrics.jsonl").read_text().splitlines()]
    assert [line["pictures"] for line in lines] == [6, 11, 15]


def kept(recipe, step, **without):
    values = asdict(recipe)
    for name in without:
        del values["diffusion"][name]
    for section, name in (("autoencoder", "patch"), ("unet", "up_block_types")):
        del values[section][name]
    del values["start"], values["world"]["reversed_scenes"]
    return {"recipe": json.dumps(values), "step": step}


def test_runs_from_before_a_setting_existed_go_on(tmp_path):
    recipe = Recipe("a")
    state = kept(recipe, 7, base=1, train=1, timesteps=1, noise_draws=1, stages=1, object_weight=1)
    check_same_recipe(state, asdict(recipe), tmp_path)
    other = replace(recipe, diffusion=replace(recipe.diffusion, noise_draws=2))
    with pytest.raises(CheckpointError, match=r"diffusion\.noise_draws"):
        check_same_recipe(state, asdict(other), tmp_path)


def test_what_is_to_come_may_be_planned_anew_and_what_was_may_not(tmp_path):
    recipe = Recipe("a")
    planned = replace(recipe, diffusion=replace(recipe.diffusion, stages=GROWING))
    later = replace(recipe, diffusion=replace(recipe.diffusion, stages=GROWING[:2]))
    more = replace(planned, world=replace(planned.world, scenes=99_999))
    check_same_recipe(kept(planned, 20), asdict(more), tmp_path)
    check_same_recipe(kept(planned, 20), asdict(later), tmp_path)
    with pytest.raises(CheckpointError, match=r"diffusion\.stages"):
        check_same_recipe(kept(planned, 26), asdict(later), tmp_path)
