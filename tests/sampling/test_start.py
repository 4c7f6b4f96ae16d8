"""Runs that go on from given latents, and negative captions."""

import pytest
import torch

from instancediffusion.sampling import (
    MeanMerge,
    Start,
    build_scheduler,
    count_rows,
    generators_for,
    start_noise,
)
from tests.tiny_pipeline import tiny_scheduler

from .toys import KINDS, SIZE, PointMass, run_scenes, targets

STEPS = 6


def run(model, scheduler, **options):
    generators = generators_for([0])
    return run_scenes(model, scheduler, start_noise(generators, SIZE), STEPS, generators=generators, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [1, 3, STEPS - 1])
def test_a_known_picture_is_found_again_from_any_step(kind, first):
    """The exact predictor of one picture: from that picture with noise, every solver leads back to it."""
    aims = targets([0])
    clean = aims[0, 0][None]
    model = PointMass(aims)
    found = run(model, build_scheduler(kind, tiny_scheduler()), start=Start(clean, first))
    # Some end with the noise of the first training step, 0.03 of the picture's.
    torch.testing.assert_close(found.latents, clean, rtol=0, atol=0.12)
    assert found.steps_done == STEPS - first
    assert model.rows == count_rows(build_scheduler(kind, tiny_scheduler()), STEPS, 0, [0], 1.0, first=first)


@pytest.mark.parametrize("kind", ["pndm", "ddim", "euler_a", "unipc", "dpm++_2s", "heun"])
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("merge_after", [0, 2])
def test_what_is_kept_is_kept_and_the_rest_is_drawn(kind, first, merge_after):
    aims = targets([1])
    clean = 3 + torch.zeros(1, *SIZE)
    redrawn = torch.zeros(1, 1, *SIZE[1:])
    redrawn[..., 2:5, 1:6] = 1
    found = run(
        PointMass(aims),
        build_scheduler(kind, tiny_scheduler()),
        start=Start(clean, first, redrawn),
        merges=[MeanMerge((1,))] if merge_after else [],
        merge_after=merge_after,
    )
    inside = redrawn.bool().expand_as(clean)
    assert torch.equal(found.latents[~inside], clean[~inside])
    assert (found.latents - aims[0, 0])[inside].abs().mean() < 0.2


def test_a_negative_caption_acts_in_its_region_as_the_unconditional_half():
    """u + w (u_i - u): with w = 1 everywhere a run is that in which the picture's negative prompt is the instance's."""

    class Away:
        def __init__(self, swapped):
            self.swapped, self.rows = swapped, 0

        def bind(self, branches):
            away = torch.tensor(
                [0.0 if b.conditional else 1.0 if b.negative or self.swapped else -1.0 for b in branches]
            )

            def predict(rows, timestep, step):
                self.rows += len(rows)
                return 0.3 * rows + 0.1 * away[:, None, None, None]

            return predict

    scheduler = build_scheduler("ddim", tiny_scheduler())
    half = torch.zeros(SIZE[1:])
    half[:, :4] = 1
    options = {"guidance": 3.0, "max_rows": 2}
    plain, swapped = run(Away(False), scheduler, **options), run(Away(True), scheduler, **options)
    model = Away(False)
    found = run(model, scheduler, negatives=[{1: half}], **options)
    torch.testing.assert_close(found.latents[..., :4], swapped.latents[..., :4])
    torch.testing.assert_close(found.latents[..., 4:], plain.latents[..., 4:])
    assert (plain.latents - swapped.latents).abs().min() > 0.1
    assert model.rows == count_rows(scheduler, STEPS, 0, [0], 3.0, negatives=1)
    model.rows = 0
    run(model, scheduler, negatives=[{1: half}], guidance=1.0)
    assert model.rows == STEPS


def test_parts_that_are_kept_run_to_the_end():
    aims = targets([2])
    scheduler = build_scheduler("euler", tiny_scheduler())
    model = PointMass(aims)
    found = run(model, scheduler, merges=[MeanMerge((1, 2))], merge_after=2, keep_parts=True)
    for number, latent in found.parts[0].items():
        torch.testing.assert_close(latent, aims[0, number], rtol=0, atol=0.02)
    assert sorted(found.parts[0]) == [1, 2]
    assert model.rows == count_rows(scheduler, STEPS, 2, [2], 1.0, keep_parts=True) == 3 * STEPS
