import copy
from typing import ClassVar

import pytest
import torch

from instancediffusion.sampling import (
    Branch,
    ClassifierFreeGuidance,
    CropMerge,
    LastMerge,
    MeanMerge,
    Window,
    build_scheduler,
    chunk_bounds,
    count_rows,
    guide,
    sample,
)

from .toys import KINDS, SIZE, PointMass, run_scenes, targets


def noise_for(count, seed=0):
    return torch.stack([torch.randn(SIZE, generator=torch.Generator().manual_seed(seed + k)) for k in range(count)])


def generators(count):
    return [torch.Generator().manual_seed(100 + k) for k in range(count)]


def run(model, scheduler, count, steps=8, **options):
    return run_scenes(model, scheduler, noise_for(count), steps, generators=generators(count), **options)


def plain(model, scheduler, image, index, noise, calls, guidance_scale, steps, start=0, state=None):
    """A trajectory by itself, written as simply as can be: no batching, no trajectories, one scheduler."""
    if state is None:
        state = copy.deepcopy(scheduler)
        state.set_timesteps(steps)
    latent = noise[None] * (state.init_noise_sigma if start == 0 else 1)
    offset = len(state.timesteps) - steps
    for call in range(start, start + calls):
        t = state.timesteps[call]
        x = state.scale_model_input(latent, t)
        e_c = model.bind([Branch(image, index, True)])(x, t, max(call - offset, 0))
        e_u = model.bind([Branch(image, index, False)])(x, t, max(call - offset, 0))
        latent = state.step(e_u + guidance_scale * (e_c - e_u), t, latent).prev_sample
    return latent[0], state


@pytest.mark.parametrize("name", ["plms", "ddim", "dpm++", "euler"])
def test_mean_merge_against_a_plain_loop(pndm, name):
    counts, steps, merge_after, guidance = [3], 8, 3, 2.0
    model, scheduler = PointMass(targets(counts), gain=0.2), build_scheduler(name, pndm)
    got = run(model, scheduler, 1, guidance=guidance, merges=[MeanMerge((1, 2, 3))], merge_after=merge_after)
    extra = name == "plms"
    alone = [plain(model, scheduler, 0, i, noise_for(1)[0], merge_after + extra, guidance, steps) for i in range(4)]
    merged = torch.stack([latent for latent, _ in alone]).mean(0)
    expected, _ = plain(
        model, scheduler, 0, 0, merged, steps - merge_after, guidance, steps, merge_after + extra, alone[0][1]
    )
    torch.testing.assert_close(got.latents[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_image_k_of_a_batch_equals_image_k_alone(pndm, name):
    counts = [2, 0, 3]
    model, scheduler = PointMass(targets(counts), gain=0.2), build_scheduler(name, pndm)
    merges = [MeanMerge(tuple(range(1, n + 1))) for n in counts]
    together = run(model, scheduler, 3, guidance=2.0, merges=merges, merge_after=3, max_rows=5)
    for k in range(3):
        single = PointMass({(0, i): model.targets[k, i] for i in range(counts[k] + 1)}, gain=0.2)
        alone = run_scenes(
            single,
            scheduler,
            noise_for(3)[k : k + 1],
            8,
            guidance=2.0,
            merges=[merges[k]],
            merge_after=3,
            generators=generators(3)[k : k + 1],
        )
        torch.testing.assert_close(together.latents[k], alone.latents[0], rtol=0, atol=0)


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 100])
def test_the_bound_on_rows_is_kept_and_changes_nothing(pndm, bound):
    model, scheduler = PointMass(targets([4, 1]), gain=0.2), build_scheduler("plms", pndm)
    options = {"guidance": 3.0, "merges": [MeanMerge((1, 2, 3, 4)), MeanMerge((1,))], "merge_after": 3}
    free = run(model, scheduler, 2, max_rows=1000, **options)
    bounded_model = PointMass(model.targets, gain=0.2)
    bounded = run(bounded_model, scheduler, 2, max_rows=bound, **options)
    assert max(rows for rows, _, _ in bounded_model.calls) <= bound
    torch.testing.assert_close(bounded.latents, free.latents, rtol=1e-6, atol=1e-6)
    # Conditioning is gathered once for each call of a stage, not again in each of its steps.
    assert len(bounded_model.bound) == -(-14 // bound) + -(-4 // bound)
    assert bounded_model.rows == count_rows(scheduler, 8, 3, [4, 1], 3.0)


def test_the_published_number_of_network_calls(pndm):
    """Four instances at a share of 0.36 of 50 steps: 254 passes (102 without the sampler)."""
    model, scheduler = PointMass(targets([4])), build_scheduler("plms", pndm)
    merge = MeanMerge((1, 2, 3, 4))
    run(model, scheduler, 1, 50, guidance=7.5)
    assert model.rows == 102
    run(model, scheduler, 1, 50, guidance=7.5, merges=[merge], merge_after=18)
    assert model.rows == 102 + 254


@pytest.mark.parametrize("name", KINDS)
def test_the_merge_is_not_lost(pndm, name):
    """A predictor-corrector remembers the sample before the merge, and would go on from that one."""
    model, scheduler = PointMass(targets([1]), gain=0.3), build_scheduler(name, pndm)
    seen = {}

    class Replace:
        instances = (1,)
        crops: ClassVar = {}

        def __init__(self, value):
            self.value = value

        def __call__(self, whole, parts):
            return torch.full_like(whole, self.value)

    for value in (0.0, 3.0):
        states = []
        run(
            model,
            scheduler,
            1,
            merges=[Replace(value)],
            merge_after=3,
            observe=lambda r, states=states: states.append(r.latents.clone()) and None,
        )
        seen[value] = states
    assert torch.equal(seen[0.0][2], torch.zeros(1, *SIZE))
    difference = (seen[3.0][3] - seen[0.0][3]).abs().mean()
    if name == "lcm":  # it starts each step from its estimate, which for this model is the picture itself
        return
    assert difference > 0.5, f"{name}: the step after the merge forgot it ({difference})"


def test_permuting_instances_changes_nothing(pndm):
    scheduler, order = build_scheduler("dpm++", pndm), [0, 3, 1, 2]
    model = PointMass(targets([3]), gain=0.2)
    shuffled = PointMass({(0, new): model.targets[0, old] for new, old in enumerate(order)}, gain=0.2)
    options = {"merges": [MeanMerge((1, 2, 3))], "merge_after": 4}
    torch.testing.assert_close(
        run(model, scheduler, 1, **options).latents, run(shuffled, scheduler, 1, **options).latents
    )


def test_without_instances_the_sampler_is_plain_sampling(pndm):
    model, scheduler = PointMass(targets([0]), gain=0.2), build_scheduler("plms", pndm)
    expected = run(model, scheduler, 1).latents
    assert torch.equal(run(model, scheduler, 1, merges=[MeanMerge(())], merge_after=4).latents, expected)
    assert torch.equal(run(model, scheduler, 1, merges=[MeanMerge((1,))], merge_after=0).latents, expected)


def test_merging_at_the_very_end(pndm):
    model, scheduler = PointMass(targets([2])), build_scheduler("ddim", pndm)
    options = {"merge_after": 8}
    mean = run(model, scheduler, 1, merges=[MeanMerge((1, 2))], **options).latents[0]
    last = run(model, scheduler, 1, merges=[LastMerge((1, 2))], **options).latents[0]
    everyone = torch.stack([model.targets[0, i] for i in range(3)]).mean(0)
    assert (mean - everyone).abs().max() < 0.15
    assert (last - model.targets[0, 2]).abs().max() < 0.15


@pytest.mark.parametrize("name", ["plms", "ddim", "dpm++", "euler", "heun", "euler_a"])
def test_the_loop_by_itself_is_a_plain_loop(pndm, name):
    """A function of latents and timestep and a stock scheduler are all that it needs; scenes run through the same."""
    scheduler = build_scheduler(name, pndm)
    found = copy.deepcopy(scheduler)
    found.set_timesteps(8)
    seen = []
    latents = sample(
        lambda x, t, step: 0.3 * x + 0.1 * torch.sin(x + step),
        found,
        noise_for(2),
        generator=generators(2),
        callback=lambda moment: seen.append(moment.call.step),
    )
    assert len(seen) == len(found.timesteps) and sorted(set(seen)) == list(range(8))

    class Same:
        def bind(self, branches):
            return lambda x, t, step: 0.3 * x + 0.1 * torch.sin(x + step)

    assert torch.equal(latents, run(Same(), scheduler, 2).latents)


def test_guidance_acts_in_its_interval_and_follows_its_scale(pndm):
    """A denoiser round a denoiser: u + s (c - u), computed in its steps only, at the scale of the moment."""
    network, scales = PointMass(targets([0, 0])), iter([3.0, 5.0])
    guided = ClassifierFreeGuidance(
        network, [Branch(0), Branch(1)], lambda: next(scales), interval=range(1, 3), max_rows=3
    )
    x, t = noise_for(2), torch.tensor(400)
    own = {half: network.bind([Branch(0, 0, half), Branch(1, 0, half)])(x, t, 0) for half in (True, False)}
    network.calls.clear()
    for step, scale in ((0, 1.0), (1, 3.0), (2, 5.0), (3, 1.0)):
        torch.testing.assert_close(guided(x, t, step), guide(own[True], own[False], scale))
    assert [rows for rows, _, _ in network.calls] == [2, 2, 2, 2, 2, 2]


def test_guidance_is_off_at_one(pndm):
    model, scheduler = PointMass(targets([0])), build_scheduler("ddim", pndm)
    run(model, scheduler, 1, guidance=1.0)
    assert all(branch.conditional for branches in model.bound for branch in branches)


def test_guidance_is_computed_in_single_precision():
    conditional, unconditional = torch.tensor([1.0]), torch.tensor([1.0 - 2**-8])
    exact = guide(conditional, unconditional, 7.5)
    assert guide(conditional.bfloat16(), unconditional.bfloat16(), 7.5).dtype == torch.float32
    assert exact.item() == pytest.approx(1 - 2**-8 + 7.5 * 2**-8)


def test_stopping(pndm):
    model, scheduler = PointMass(targets([2])), build_scheduler("plms", pndm)
    done = []
    out = run(
        model,
        scheduler,
        1,
        merges=[MeanMerge((1, 2))],
        merge_after=5,
        observe=lambda r: done.append(r.step) and None,
        should_stop=lambda: len(done) == 3,
    )
    assert out.stopped
    assert out.steps_done == 3
    assert done == [0, 1, 2]
    # Though the latents are still noisy, the model's idea of the picture is there.
    assert (out.estimate[0] - model.targets[0, 0]).abs().max() < 0.05
    assert not run(model, scheduler, 1, should_stop=lambda: True).steps_done


@pytest.mark.parametrize("name", ["plms", "unipc", "euler"])
def test_an_observer_may_replace_the_latents(pndm, name):
    model, scheduler = PointMass(targets([0]), gain=0.3), build_scheduler(name, pndm)
    reports = []

    def observe(report):
        reports.append(report)
        return torch.full_like(report.latents, 2.0) if report.step == 3 else None

    run(model, scheduler, 1, observe=observe)
    assert [r.step for r in reports] == list(range(8))
    untouched = []
    run(model, scheduler, 1, observe=lambda r: untouched.append(r.latents.clone()) and None)
    assert (reports[4].latents - untouched[4]).abs().mean() > 0.5


@pytest.mark.parametrize(("rows", "bound"), [(0, 3), (1, 3), (3, 3), (4, 3), (14, 4), (100, 1)])
def test_chunks_cover_every_row_once(rows, bound):
    bounds = chunk_bounds(rows, bound)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(rows))
    sizes = [stop - start for start, stop in bounds]
    assert all(0 < size <= bound for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(bounds) == -(-rows // bound)


def test_windows():
    assert Window.from_box((0.25, 0.5, 0.75, 1.0), (8, 16)) == Window(4, 4, 8, 12)
    # An edge inside a cell takes the cell in; one on a border, up to rounding, does not take in the next.
    assert Window.from_box((0.3, 0.3, 0.7, 0.7), (10, 10)) == Window(3, 3, 7, 7)
    assert Window.from_box((0.31, 0.39, 0.69, 0.61), (10, 10)) == Window(3, 3, 7, 7)
    # However thin, a box has a cell, and stays on the canvas.
    assert Window.from_box((0.5, 0.5, 0.5, 0.5), (8, 8)) == Window(4, 4, 5, 5)
    assert Window.from_box((1.0, 1.0, 1.0, 1.0), (8, 8)) == Window(7, 7, 8, 8)


def test_crop_pastes_in_order_and_leaves_its_input():
    whole = torch.zeros(1, 4, 6, 8)
    kept = whole.clone()
    parts = {1: torch.full_like(whole, 1.0), 2: torch.full_like(whole, 2.0)}
    merged = CropMerge(((1, Window(0, 0, 4, 4)), (2, Window(2, 3, 6, 8))))(whole, parts)
    assert torch.equal(whole, kept)
    assert merged[0, 0].tolist() == [
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 2, 2, 2, 2, 2],
        [1, 1, 1, 2, 2, 2, 2, 2],
        [0, 0, 0, 2, 2, 2, 2, 2],
        [0, 0, 0, 2, 2, 2, 2, 2],
    ]


def test_the_published_crop_is_transposed():
    """It takes x for the row: a wide box at the top is pasted as a tall one at the left."""
    box = (0.0, 0.0, 0.5, 0.25)
    assert Window.published(box, (8, 8)) == Window(0, 0, 4, 2)
    assert Window.from_box(box, (8, 8)) == Window(0, 0, 2, 4)
