"""Settings are told once: options, controls and checks are those of the fields of `GenerationSettings`."""

import math

import click
import pytest

from instancediffusion.cli import cli
from instancediffusion.cli.generate import generate
from instancediffusion.cli.settings_options import settings_of
from instancediffusion.errors import SettingsError
from instancediffusion.presets import PRESETS, PUBLISHED_INFERENCE, few_step_settings
from instancediffusion.settings import SETTINGS, GenerationSettings
from instancediffusion.studio.controls import OWN, described, described_presets, preset_names

BESIDE = {
    "mis_fraction": {"mis_compat": "published"},
    "grounding_decay_fraction": {"grounding_fraction": 0.0},
    "refiner_strength": {"refiner_steps": 1000},
}
"""What else a value at the end of a range needs."""


def option(name, command=generate):
    return next(one for one in command.params if one.name == name)


def refused(name, value):
    """Whether settings refuse a value because of its own field."""
    try:
        GenerationSettings(**BESIDE.get(name, {}), **{name: value})
    except SettingsError as error:
        return f"{name}: " in str(error)
    return False


def option_refuses(name, text):
    try:
        option(name).type.convert(text, None, None)
    except click.BadParameter:
        return True
    return False


def test_every_field_has_an_option_and_a_control_or_the_reason_why_not():
    shown = {control["name"]: control for control in described(GenerationSettings())}
    for name, setting in SETTINGS.items():
        assert option(name).help.startswith(setting.help)
        assert setting.help.endswith(".")
        assert (name in shown) != bool(setting.no_control), name
        if name in shown:
            assert shown[name]["help"] == setting.help
            assert shown[name]["default"] == setting.default
            assert [choice["value"] for choice in shown[name].get("choices", [])] == list(setting.choices)
            ends = [] if setting.choices else [shown[name]["low"], shown[name]["high"]]
            assert not any(refused(name, value) for value in ends)


@pytest.mark.parametrize(
    "path", [("evaluate",), ("dataset", "make"), ("study", "overlap"), ("study", "ablation")], ids=" ".join
)
def test_commands_that_have_scenes_alone_take_all_that_needs_no_more(path):
    command = cli
    for name in path:
        command = command.get_command(click.Context(cli), name)
    taken = {name for name in SETTINGS if any(one.name == name for one in command.params)}
    assert taken == {name for name, setting in SETTINGS.items() if not setting.needs}
    for name in taken:
        assert option(name, command).opts == option(name).opts
    assert option("preset", command).help


def beyond(setting):
    """Values at the ends of a range, and just beyond them."""
    step = 1 if setting.kind == "integer" else 1e-3
    return [setting.low, setting.high], [setting.low - step, setting.high + step]


def test_options_refuse_what_settings_refuse():
    numbers = [
        setting for setting in SETTINGS.values() if setting.kind in ("integer", "number") and not setting.choices
    ]
    assert len(numbers) > 15
    for setting in numbers:
        inside, outside = beyond(setting)
        for value in inside:
            assert not refused(setting.name, value) and not option_refuses(setting.name, str(value)), setting.name
        odd = [math.nan, math.inf] if setting.kind == "number" else [0.5]
        for value in [*outside, *odd]:
            assert refused(setting.name, value) and option_refuses(setting.name, str(value)), (setting.name, value)
    for setting in SETTINGS.values():
        for word in setting.choices:
            assert not refused(setting.name, word) and not option_refuses(setting.name, word)
        if setting.choices:
            assert refused(setting.name, "nonsense") and option_refuses(setting.name, "nonsense")
        if setting.kind == "numbers":
            assert option(setting.name).type.convert("900,50", None, None) == (900, 50)
            assert refused(setting.name, (50, 900)) and option_refuses(setting.name, "900,x")
    assert refused("mis_merge", ["mean"]) and refused("mis_merge", None) and not refused("scheduler", None)


def test_the_interval_of_guidance_has_an_end_after_its_start():
    GenerationSettings(guidance_start=0.4, guidance_end=0.4)
    with pytest.raises(SettingsError, match=r"guidance_end: 0.2 is before guidance_start 0.4"):
        GenerationSettings(guidance_start=0.4, guidance_end=0.2)


def test_levers_that_are_off_leave_the_marks_of_folders_as_they_were():
    told = GenerationSettings(max_batch_rows=3).decisive()
    assert told == GenerationSettings().decisive()
    assert not {"max_batch_rows", "guidance_start", "guidance_end", "cache_interval"} & told.keys()
    for name, value in {"guidance_start": 0.1, "guidance_end": 0.9, "cache_interval": 2}.items():
        assert GenerationSettings(**{name: value}).decisive() == told | {name: value}


def test_presets_stand_on_the_model_and_below_options():
    own = GenerationSettings(num_inference_steps=12, guidance_scale=2.0, guidance_end=0.5, mis_fraction=0.0)
    for name in PRESETS:
        chosen = settings_of(own, {"preset": name, "num_inference_steps": None, "eta": 0.5})
        assert chosen == GenerationSettings.preset(name, own).replace(eta=0.5)
        assert chosen.guidance_scale == 2.0
    assert settings_of(own, {"preset": None}) == own
    exact = GenerationSettings.preset("exact", own).to_dict()
    assert PUBLISHED_INFERENCE.items() <= exact.items()
    assert (exact["step_rounding"], exact["mis_compat"], exact["guidance_end"]) == ("published", "published", 1.0)


def test_the_page_is_told_what_a_preset_changes():
    own = GenerationSettings(num_inference_steps=12)
    told = {entry["name"]: entry for entry in described_presets(own)}
    assert list(told) == preset_names() == [OWN, *PRESETS]
    for name, entry in told.items():
        chosen = own if name == OWN else GenerationSettings.preset(name, own)
        assert own.replace(**entry["settings"]) == chosen
        assert entry["help"].endswith(".")


@pytest.mark.parametrize(
    ("source", "scheduler", "steps", "guidance"),
    [
        ("latent-consistency/lcm-lora-sdv1-5", "lcm", 4, 1.0),
        ("models/lcm-lora/pytorch_lora_weights.safetensors", "lcm", 4, 1.0),
        (r"C:\\loras\\TCD-SD15-LoRA.safetensors", "tcd", 4, 1.0),
        ("ByteDance/Hyper-SD/Hyper-SD15-8steps-lora.safetensors", "ddim_trailing", 8, 1.0),
        ("Hyper-SD15-1step-lora.safetensors", "ddim_trailing", 1, 1.0),
        ("Hyper-SD15-12steps-CFG-lora.safetensors", "ddim_trailing", 12, None),
        ("sdxl_lightning_2step_lora.safetensors", "euler_trailing", 2, 1.0),
        ("runs/few/export/mini-distilled-4steps.safetensors", "ddim_trailing", 4, 1.0),
        ("distilled-water.safetensors", None, None, None),
        ("lcm-tests/horses.safetensors", None, None, None),
        ("hyperrealistic.safetensors", None, None, None),
        ("lightning-bolts.safetensors", None, None, None),
        ("welcome.safetensors", None, None, None),
    ],
)
def test_few_step_loras_are_known_by_name(source, scheduler, steps, guidance):
    found = few_step_settings(["style.safetensors", source])
    assert (found.get("scheduler"), found.get("num_inference_steps"), found.get("guidance_scale")) == (
        scheduler, steps, guidance,
    )  # fmt: skip
    GenerationSettings().replace(**found)
    fast = GenerationSettings.preset("fast", loras=[source])
    assert fast.scheduler == (scheduler or PRESETS["fast"].values["scheduler"])
    assert GenerationSettings.preset("exact", loras=[source]) == GenerationSettings.preset("exact")
