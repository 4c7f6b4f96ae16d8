"""A finished model distilled to few steps without guidance."""

import json
import shutil
import stat
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tests.tiny_pipeline import scene_of

from instancediffusion import InstanceDiffusionPipeline, save_scene
from instancediffusion.additions import LORA_FOLDER, Additions, Weighted
from instancediffusion.checkpoints import weights_sha256
from instancediffusion.cli import cli
from instancediffusion.data import SceneCache
from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.sampling import build_scheduler
from instancediffusion.settings import GenerationSettings
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import CHECKPOINT, freeze, load_checkpoint
from instancediffusion.training.config import DistillationConfig, OptimiserConfig
from instancediffusion.training.export import export
from instancediffusion.training.few_steps import FewSteps
from instancediffusion.training.preview import SceneNetwork

SCALE = 4.0


@pytest.fixture(scope="module")
def distilling(recipe, base):
    """A recipe that distils the tiny base: three steps, two of the teacher's in each."""
    run = OptimiserConfig(
        steps=6, batch_size=2, learning_rate=1e-2, warmup=1, checkpoint_every=2, log_every=2, precision="fp32",
        weight_decay=0.0,
    )  # fmt: skip
    config = DistillationConfig(
        teacher=str(base), steps=3, substeps=2, guidance_scale=SCALE, rank=2, pool=2, uses=2, optimiser=run
    )
    return replace(recipe, distillation=config)


@pytest.fixture
def student(distilling, base):
    return FewSteps(distilling.distillation, base)


@pytest.fixture
def pipe(base):
    pipeline = InstanceDiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def run(drawn, tmp_path):
    (tmp_path / "scenes").symlink_to(drawn / "scenes")
    return tmp_path


def network(few, scene, size=(16, 16)):
    """The student's network conditioned on a scene as the pipeline reads it."""
    parts, captions = few.student, [[instance.caption for instance in scene.instances]]
    return SceneNetwork(parts, [scene.prompt], captions, parts.adapter.locations([scene]), size)


def sampled(pipe, scene, noise, **settings):
    """Latents after every step of the pipeline."""
    passed = []

    def keep(pipeline, step, timestep, values):
        passed.append(values["latents"].clone())
        return values

    whole = {"grounding_fraction": 1.0, "mis_fraction": 0.0, "output_type": "latent", "negative_prompt": ""}
    pipe(scene, latents=noise, callback_on_step_end=keep, **whole, **settings)
    return torch.stack(passed)


def test_a_student_that_learned_nothing_is_the_teacher_without_guidance(student, pipe):
    scene, noise = scene_of(3), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        walked = torch.stack(list(student.walk(network(student, scene), noise)))
    unguided = sampled(pipe, scene, noise, scheduler="ddim_trailing", num_inference_steps=3, guidance_scale=1.0)
    torch.testing.assert_close(walked, unguided, rtol=1e-4, atol=1e-4)


def test_the_teacher_is_where_the_guided_sampler_of_the_pipeline_is(student, pipe):
    scene, noise = scene_of(4), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        for layer in student.lora.layers.values():
            layer.weight.fill_(0.1)  # the teacher is not to notice what the student has learned
        with student.teaching():
            taught = student.guided(network(student, scene), noise)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, timestep_spacing="trailing")
    passed = sampled(pipe, scene, noise, scheduler="dpm++_2m", num_inference_steps=6, guidance_scale=SCALE)
    torch.testing.assert_close(taught, passed[1::2], rtol=1e-4, atol=1e-4)
    assert (passed[-1] - noise).abs().mean() > 0.1


def test_a_step_changes_with_the_prediction_by_its_scale(student):
    scheduler = build_scheduler("ddim_trailing", student._own)
    scheduler.set_timesteps(3)
    x, first, second = torch.randn(3, 1, 4, 8, 8).unbind()
    for t, scale in zip(student.timesteps, student.scales, strict=True):
        moved = [scheduler.step(predicted, t, x).prev_sample for predicted in (first, second)]
        torch.testing.assert_close((moved[0] - moved[1]).abs(), scale * (first - second).abs(), rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_to_the_same_weights_and_learns(distilling, run, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    (whole / "scenes").symlink_to((run / "scenes").resolve())
    stages.distillation(distilling, whole)
    for _ in range(2):  # stopped in the middle of the first pass, and in that of a later one
        stages.distillation(distilling, run, stop_after=3)
    one, two = (load_checkpoint(folder / "distillation" / CHECKPOINT) for folder in (whole, run))
    assert one["step"] == two["step"] == 6
    for name, value in one["modules"]["lora"].items():
        assert torch.equal(value, two["modules"]["lora"][name]), name
    task = stages.distillation_task(distilling, run)
    before = float(task.loss(0)[0].detach())
    freeze(task, distilling.distillation.optimiser, run / "distillation")
    assert float(task.loss(0)[0]) < before


def test_batches_come_back_as_often_as_they_are_used(distilling, run):
    task = stages.distillation_task(distilling, run)
    assert [task._batch_of(step) for step in range(9)] == [0, 1, 0, 1, 2, 3, 2, 3, 4]


def test_the_exported_lora_draws_the_students_picture(distilling, run, pipe, base):
    stages.distillation(distilling, run)
    export(distilling, run, run / "export")
    (file,) = (run / "export").glob("*.safetensors")
    assert file.name == "tiny-distilled-3steps.safetensors" and stat.S_IMODE(file.stat().st_mode) == 0o644
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    card = json.loads((run / "export" / "card.json").read_text())
    assert card["pictures_seen"] == {"distillation": 12} and card["teacher_guidance_scale"] == SCALE

    few = FewSteps(replace(distilling.distillation, init=str(file)), base)  # which is how a run goes on from a file
    scene, noise = scene_of(3), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        walked = list(few.walk(network(few, scene), noise))[-1]
    untouched = sampled(pipe, scene, noise, preset="fast")
    pipe.load_lora_weights(str(run / "export"), weight_name=file.name)
    settings = GenerationSettings.preset("fast", pipe.default_settings, pipe.loras_in_use)
    assert (settings.num_inference_steps, settings.guidance_scale, settings.scheduler) == (3, 1.0, "ddim_trailing")
    passed = sampled(pipe, scene, noise, preset="fast")
    assert len(passed) == 3
    torch.testing.assert_close(walked, passed[-1], rtol=1e-4, atol=1e-4)
    assert (untouched[-1] - passed[-1]).abs().mean() > 1e-2


def test_a_student_in_its_teachers_folder_is_known_by_name(distilling, run, base, tmp_path):
    stages.distillation(distilling, run, stop_after=1)
    model = tmp_path / "model"
    shutil.copytree(base, model)
    weights = weights_sha256(model)
    export(distilling, run, model / LORA_FOLDER)
    assert weights_sha256(model) == weights
    save_scene(scene_of(2), tmp_path / "scene.json")
    command = [tmp_path / "scene.json", "--model", model, "-o", tmp_path / "out", "--preset", "fast", "--quiet"]
    result = CliRunner().invoke(cli, ["generate", *map(str, command), "--lora", "tiny-distilled-3steps"])
    assert result.exit_code == 0, result.output
    note = json.loads((tmp_path / "out" / "manifest.json").read_text())
    text = json.dumps(note)
    assert "tiny-distilled-3steps.safetensors" in text and "ddim_trailing" in text
    whole = Additions(loras=(Weighted("tiny-distilled-3steps.safetensors"),)).with_model(model)
    assert whole.loras[0].source == str(model / LORA_FOLDER / "tiny-distilled-3steps.safetensors")
    assert Additions(loras=(Weighted("tiny-distilled-9steps"),)).with_model(model).loras[0].source == (
        "tiny-distilled-9steps"
    )


def test_a_whole_student_is_a_model_that_states_its_own_sampler(distilling, run, base):
    whole = replace(distilling, distillation=replace(distilling.distillation, rank=0))
    stages.distillation(whole, run)
    export(whole, run, run / "export")
    model = InstanceDiffusionPipeline.from_pretrained(run / "export")
    model.set_progress_bar_config(disable=True)
    own = model.default_settings
    assert (own.num_inference_steps, own.guidance_scale, own.scheduler) == (3, 1.0, "ddim_trailing")
    task = stages.distillation_task(whole, run)
    freeze(task, whole.distillation.optimiser, run / "distillation")
    scene, noise = scene_of(2), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        walked = list(task.few.walk(network(task.few, scene), noise))[-1]
    torch.testing.assert_close(walked, sampled(model, scene, noise)[-1], rtol=2e-2, atol=2e-2)  # float16 weights
    # The teacher has learned nothing along.
    unet = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in task.few.teacher.unet.state_dict().items():
        assert torch.equal(value, unet[name]), name


def test_what_cannot_be_distilled_is_refused_by_name(distilling, recipe, base, run, tmp_path):
    with pytest.raises(SettingsError, match=r"distillation\.teacher = 'nowhere'.* has no vae"):
        stages.distillation(replace(distilling, distillation=replace(distilling.distillation, teacher="nowhere")), run)
    with pytest.raises(SettingsError, match=r"distillation\.layers = \['attention'\]"):
        FewSteps(replace(distilling.distillation, layers=("attention",)), base)
    with pytest.raises(SettingsError, match="base are for other stages"):
        replace(distilling, start="mini")
    low = ({"steps": 0}, {"rank": -1}, {"guidance_scale": -1.0})
    for wrong in (*low, {"drop_prompt": 1.5}, {"rank": 0, "init": "some.safetensors"}):
        with pytest.raises(SettingsError, match=next(reversed(wrong))):
            DistillationConfig(**wrong)
    stages.distillation(distilling, run, stop_after=2)
    export(distilling, run, tmp_path / "export")
    (file,) = (tmp_path / "export").glob("*.safetensors")
    with pytest.raises(SettingsError, match="it has other layers"):
        FewSteps(replace(distilling.distillation, rank=3, init=str(file)), base)
    for path in ("gone.safetensors", str(tmp_path / "export" / "card.json")):
        with pytest.raises(SettingsError, match=r"distillation\.init = .*: no LoRA file that can be read"):
            FewSteps(replace(distilling.distillation, init=path), base)
    # Another teacher under the same name.
    task = stages.distillation_task(distilling, run)
    state = task.state()
    with pytest.raises(CheckpointError, match="teacher has other weights"):
        task.load_state({**state, "teacher": "0"})
    assert stages.names(distilling) == ("scenes", "distillation", "export")
    assert "distillation" not in stages.names(recipe)
    assert SceneCache(run / "scenes").sizes == {(32, 32)}
