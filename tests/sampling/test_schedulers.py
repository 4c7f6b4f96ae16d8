import copy
import functools

import pytest
import torch

from instancediffusion.choices import scheduler_name
from instancediffusion.errors import SettingsError
from instancediffusion.sampling import SCHEDULERS, MeanMerge, build_scheduler, calls_of_steps, clean_estimate

from .toys import KINDS, SIZE, PointMass, alphas, run_scenes, targets


@pytest.mark.parametrize(
    ("name", "steps"), [(name, 7) for name in SCHEDULERS] + [(name, steps) for name in KINDS for steps in (1, 2, 20)]
)
def test_every_scheduler_reaches_the_only_picture_there_is(pndm, name, steps):
    model = PointMass(targets([0]))
    noise = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    out = run_scenes(model, build_scheduler(name, pndm), noise, steps, generators=[generator])
    # Schedulers that end at the first training step, as the published one does, keep 2.9 % of noise.
    error = (out.latents[0] - model.targets[0, 0]).abs().max()
    assert error < (0.15 if steps > 1 else 4), f"{name}: {error}"
    assert out.steps_done == steps


def test_steps_that_call_the_network_twice(pndm):
    from diffusers import HeunDiscreteScheduler

    plms = build_scheduler("plms", pndm)
    plms.set_timesteps(8)
    assert calls_of_steps(plms, 8) == (0, 0, 1, 2, 3, 4, 5, 6, 7)
    assert plms.timesteps.tolist() == [876, 751, 751, 626, 501, 376, 251, 126, 1]
    ddim = build_scheduler("ddim", pndm)
    ddim.set_timesteps(8)
    assert calls_of_steps(ddim, 8) == tuple(range(8))
    heun = HeunDiscreteScheduler.from_config(pndm.config)
    heun.set_timesteps(4)
    assert calls_of_steps(heun, 4) == (0, 0, 1, 1, 2, 2, 3)


def test_both_calls_of_a_doubled_step_are_told_its_number(pndm):
    model = PointMass(targets([0]))
    run_scenes(model, build_scheduler("plms", pndm), torch.zeros(1, *SIZE), 3)
    assert [step for _, _, step in model.calls] == [0, 0, 1, 2]


def test_the_model_scheduler_is_not_touched(pndm):
    before = dict(vars(pndm))
    for name in (None, *KINDS):
        run_scenes(PointMass(targets([0])), build_scheduler(name, pndm), torch.zeros(1, *SIZE), 3)
    assert vars(pndm) == before


def test_unknown_scheduler_names_the_nearest(pndm):
    with pytest.raises(SettingsError, match=r"'eular'.*did you mean 'euler'"):
        build_scheduler("eular", pndm)


@pytest.mark.parametrize("name", KINDS)
def test_a_schedule_without_signal_at_its_end(name):
    """Velocity models with zero terminal signal work with every name, also where the class cannot rescale."""
    from diffusers import DDIMScheduler

    trained = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    levels = trained.alphas_cumprod
    aim = torch.linspace(-1, 1, 256).view(SIZE)

    class Velocity:
        def bind(self, branches):
            def predict(x, t, step):
                a = levels[t.long()]
                noise = (x - a.sqrt() * aim) / (1 - a).sqrt()
                return a.sqrt() * noise - (1 - a).sqrt() * aim

            return predict

    noise = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    out = run_scenes(Velocity(), build_scheduler(name, trained), noise, 10, generators=[generator])
    assert (out.latents[0] - aim).abs().max() < 0.25


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_clean_estimate_inverts_the_forward_process(pndm, kind):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(pndm.config, prediction_type=kind)
    clean, noise = torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    for t in (0, 400, 999):
        a = alphas()[t].float()
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        prediction = noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        got = clean_estimate(scheduler, noisy, prediction, torch.tensor(t))
        torch.testing.assert_close(got, clean, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DPM++ 2M Karras", "dpm++_2m_karras"),
        ("dpmpp_2m_sde_k", "dpm++_2m_sde_karras"),
        ("DPM++ SDE Karras", "dpm++_sde_karras"),
        ("Euler a", "euler_a"),
        ("euler-ancestral", "euler_a"),
        ("DPM2 a Karras", "dpm2_a_karras"),
        ("k_lms", "lms"),
        ("UniPC", "unipc"),
        ("LCM", "lcm"),
        ("no such", "no such"),
    ],
)
def test_names_of_other_programs(text, name):
    assert scheduler_name(text) == name


FLOW = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        (FLOW, {}, "flow matching"),
        ("FlowMatchHeunDiscreteScheduler", {}, "flow matching"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "flow matching"),
        ("EDMEulerScheduler", {}, "EDM"),
        ("CogVideoXDDIMScheduler", {}, "video"),
        ("DDIMInverseScheduler", {}, "from a picture to noise"),
        ("CMStochasticIterativeScheduler", {}, "consistency models"),
        ("RePaintScheduler", {}, "a picture to go on from"),
        ("UnCLIPScheduler", {}, "unCLIP"),
        ("ScoreSdeVeScheduler", {}, "noise or velocity"),
        ("SCMScheduler", {}, "noise or velocity"),
        ("DDIMScheduler", {"prediction_type": "score"}, "'score'"),
    ],
)
def test_schedulers_of_other_models_are_refused_by_name(name, options, reason):
    import diffusers

    with pytest.raises(SettingsError, match=rf"scheduler: {name} .*{reason}.*DDIMScheduler"):
        build_scheduler(None, getattr(diffusers, name)(**options))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seeds_give_the_same_pictures_in_any_batch(pndm, name):
    """Also where a scheduler makes noise of its own (DPMSolverSDE once drew from nowhere)."""
    scheduler = build_scheduler(name, pndm)
    noise = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))

    def run(*seeds, start=noise):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        model = PointMass(targets([0] * len(start)), gain=0.2)
        return run_scenes(model, scheduler, start, 4, generators=generators).latents

    both = run(1, 2)
    assert torch.equal(both, run(1, 2))
    torch.testing.assert_close(run(1, start=noise[:1])[0], both[0], rtol=0, atol=1e-4)


def from_elsewhere(scheduler):
    """The same scheduler as a class of somebody else's, of which it is not known what it does with a batch."""
    own = type(scheduler)

    @functools.wraps(own.step)
    def step(self, model_output, *args, **kwargs):
        assert len(model_output) == 1
        return own.step(self, model_output, *args, **kwargs)

    step.__module__ = __name__
    other = copy.deepcopy(scheduler)
    other.__class__ = type("Elsewhere", (own,), {"step": step})
    return other


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_batch_is_stepped_as_its_rows_are(pndm, name, shared):
    """One scheduler for all trajectories, or one for each: the same latents to the bit, noise and history included."""
    counts, steps = [2, 0, 3], 6
    merges = [MeanMerge(tuple(range(1, count + 1))) for count in counts]
    noise = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
    found = []
    for scheduler in (build_scheduler(name, pndm), from_elsewhere(build_scheduler(name, pndm))):
        generators = [torch.Generator().manual_seed(k) for k in range(3)]
        out = run_scenes(
            PointMass(targets(counts), gain=0.2),
            scheduler,
            noise,
            steps,
            guidance=2.0,
            merges=merges,
            merge_after=3,
            generators=[generators[0]] * 3 if shared else generators,
            eta=0.5,
            observe=lambda report: report.latents.roll(1, 1) if report.step == 4 else None,
        )
        found.append(out.latents)
    assert torch.equal(*found)


def test_trajectories_share_a_scheduler(pndm, monkeypatch):
    from diffusers import DDIMScheduler

    rows, own = [], DDIMScheduler.step

    @functools.wraps(own)
    def step(self, model_output, *args, **kwargs):
        rows.append(len(model_output))
        return own(self, model_output, *args, **kwargs)

    monkeypatch.setattr(DDIMScheduler, "step", step)
    noise = torch.zeros(2, *SIZE)
    run_scenes(
        PointMass(targets([3, 2])),
        build_scheduler("ddim", pndm),
        noise,
        4,
        merges=[MeanMerge((1, 2, 3)), MeanMerge((1, 2))],
        merge_after=2,
    )
    assert rows == [2, 5, 2, 5, 2, 2]  # both scenes, and before the merge all instances
