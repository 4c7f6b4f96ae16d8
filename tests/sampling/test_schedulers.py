import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.sampling import SCHEDULERS, build_scheduler, calls_of_steps, clean_estimate, sample

from .toys import SIZE, PointMass, alphas, targets


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_every_scheduler_reaches_the_only_picture_there_is(pndm, name, steps):
    model = PointMass(targets([0]))
    noise = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    out = sample(
        model,
        build_scheduler(name, pndm),
        noise,
        grounding_scales=[1.0] * steps,
        generators=[generator],
    )
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


def test_both_calls_of_a_doubled_step_have_its_grounding_scale(pndm):
    model = PointMass(targets([0]))
    sample(model, build_scheduler("plms", pndm), torch.zeros(1, *SIZE), grounding_scales=[1.0, 0.5, 0.0])
    assert [scale for _, _, scale in model.calls] == [1.0, 1.0, 0.5, 0.0]


def test_the_model_scheduler_is_not_touched(pndm):
    before = dict(vars(pndm))
    for name in (None, *SCHEDULERS):
        sample(PointMass(targets([0])), build_scheduler(name, pndm), torch.zeros(1, *SIZE), grounding_scales=[1.0] * 3)
    assert vars(pndm) == before


def test_unknown_scheduler_names_the_nearest(pndm):
    with pytest.raises(SettingsError, match=r"'eular'.*did you mean 'euler'"):
        build_scheduler("eular", pndm)


@pytest.mark.parametrize("name", SCHEDULERS)
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
            def predict(x, t, scale):
                a = levels[t.long()]
                noise = (x - a.sqrt() * aim) / (1 - a).sqrt()
                return a.sqrt() * noise - (1 - a).sqrt() * aim

            return predict

    noise = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    out = sample(Velocity(), build_scheduler(name, trained), noise, grounding_scales=[1.0] * 10, generators=[generator])
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
