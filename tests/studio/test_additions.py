"""LoRA files, textual inversions, ControlNets, IP-Adapters and reference pictures in the studio, as `generate` does."""

import base64
import io
import json

import pytest
import torch
from click.testing import CliRunner
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from instancediffusion.cli import cli
from instancediffusion.errors import ModelError
from instancediffusion.studio import Engine, Limits, RunStore, Studio
from tests.pipeline.test_files_people_have import lora_of
from tests.pipeline.test_given_pictures import image_encoder, ip_adapter_weights, picture, tiny_controlnet, tiny_t2i
from tests.studio.server import SESSION, Refused, running
from tests.tiny_pipeline import scene_of, tiny_pipeline

QUICK = {"settings": {"num_inference_steps": 2, "guidance_scale": 2.0}, "seed": 7}


def png(seed):
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A tiny model, and a folder of files for it."""
    root = tmp_path_factory.mktemp("shelf")
    pipeline, models = tiny_pipeline(root / "words"), root / "models"
    pipeline.save_pretrained(root / "model")
    (models / "ip").mkdir(parents=True)
    StableDiffusionPipeline.save_lora_weights(models, unet_lora_layers=lora_of(root, 1), weight_name="a.safetensors")
    StableDiffusionPipeline.save_lora_weights(models, unet_lora_layers=lora_of(root, 2), weight_name="b.safetensors")
    save_file({"<toy>": torch.randn(2, 32, generator=torch.Generator().manual_seed(0))}, models / "toy.safetensors")
    groups = ip_adapter_weights(pipeline.unet)
    flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    save_file(flat, models / "ip" / "ip.safetensors")
    image_encoder()[0].save_pretrained(models / "ip" / "image_encoder")
    tiny_controlnet().save_pretrained(models / "edges")
    tiny_t2i().save_pretrained(models / "sketch")
    (models / "damaged.safetensors").write_bytes(b"no weights")
    (root / "outside.safetensors").write_bytes((models / "a.safetensors").read_bytes())
    return root


@pytest.fixture(scope="module")
def server(shelf, tmp_path_factory):
    pytest.importorskip("gradio", reason="the studio needs gradio (pip install 'instancediffusion[studio]')")
    folders = ["--model", str(shelf / "model"), "--models", str(shelf / "models")]
    with running(tmp_path_factory.mktemp("studio") / "root", *folders) as running_server:
        yield running_server


def text_of(reference=None):
    data = scene_of(2).to_dict()
    data["instances"][0]["caption"] = "a <toy> cat"
    if reference is not None:
        data["instances"][1]["reference"] = f"data:image/png;base64,{base64.b64encode(reference).decode()}"
    return json.dumps(data)


def made(server, text, options):
    state = server.finished(server.run("submit", text, options, SESSION)["job"])
    assert state["state"] == "done", state
    return server.root / "runs" / state["result"]


def test_everything_is_that_of_the_command_line(server, shelf, tmp_path):
    plain = made(server, text_of(), QUICK) / "scene_7.png"
    kept = {seed: server.run("keep_picture", base64.b64encode(png(seed)).decode(), f"{seed}.png") for seed in (1, 2, 3)}
    asked = {
        "lora": [{"path": "a.safetensors", "weight": 0.5}, {"path": str(shelf / "models" / "b.safetensors")}],
        "textual_inversion": [{"path": "toy.safetensors"}],
        "control": [
            {"path": "edges", "weight": 0.7, "picture": kept[1]["id"]},
            {"path": "sketch", "picture": kept[2]["id"]},
        ],
        "ip_adapter": {"path": "ip/ip.safetensors", "weight": 0.8, "picture": kept[3]["id"]},
    }
    text = text_of(reference=png(4))
    run = made(server, text, {**QUICK, "additions": asked})

    (tmp_path / "scene.json").write_text(text)
    for seed in kept:
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    models = shelf / "models"
    options = {
        "--lora": [f"{models / 'a.safetensors'}:0.5", models / "b.safetensors"],
        "--textual-inversion": [models / "toy.safetensors"],
        "--controlnet": [f"{models / 'edges'}:0.7", models / "sketch"],
        "--control": [tmp_path / "1.png", tmp_path / "2.png"],
        "--ip-adapter": [f"{models / 'ip' / 'ip.safetensors'}:0.8"],
        "--ip-adapter-image": [tmp_path / "3.png"],
        "--seed": [7], "--steps": [2], "--guidance-scale": [2.0],
        "--model": [shelf / "model"], "-o": [tmp_path / "out"],
    }  # fmt: skip
    given = [str(part) for name, values in options.items() for value in values for part in (name, value)]
    result = CliRunner().invoke(cli, ["generate", str(tmp_path / "scene.json"), *given])
    assert result.exit_code == 0, result.output
    assert (run / "scene_7.png").read_bytes() == (tmp_path / "out" / "scene_7.png").read_bytes()
    ours, theirs = (
        json.loads((folder / "manifest.json").read_text())["items"]["scene_7"] for folder in (run, tmp_path / "out")
    )
    assert ours["fingerprint"] == theirs["fingerprint"]
    assert {"lora", "textual_inversion", "control", "ip_adapter", "ip_adapter_image"} <= ours["record"]["model"].keys()

    # Each counts, and afterwards the model is as it was.
    first = (run / "scene_7.png").read_bytes()
    for name in ("lora", "textual_inversion", "control"):
        others = {kind: own for kind, own in asked.items() if kind != name}
        assert (made(server, text, {**QUICK, "additions": others}) / "scene_7.png").read_bytes() != first
    assert (made(server, text_of(), QUICK) / "scene_7.png").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"lora": [{"path": "none.safetensors"}]}, r"lora\[0\].path: there is no 'none.safetensors' in .*--models"),
        ({"lora": [{"path": "../outside.safetensors"}]}, r"lora\[0\].path: there is no"),
        ({"lora": [{"path": "{root}/outside.safetensors"}]}, r"lora\[0\].path: there is no"),
        ({"lora": [{"path": ""}]}, r"lora\[0\].path: there is none; name a file"),
        ({"lora": [{"path": "a.safetensors", "weight": "much"}]}, r"lora\[0\].weight: 'much' is not a number"),
        ({"lora": [{"path": "a.safetensors"}] * 9}, "lora: write a list of at most 8"),
        ({"lora": [{"file": "a.safetensors"}]}, r"lora\[0\]: write a JSON object of path, weight"),
        ({"loras": []}, "additions: write a JSON object of lora, textual_inversion"),
        ({"control": [{"path": "edges"}]}, r"control\[0\].picture: there is none"),
        ({"control": [{"path": "edges", "picture": "a" * 64}]}, r"control\[0\].picture: it is not here any more"),
        ({"control": [{"path": "edges", "picture": "../.."}]}, r"control\[0\].picture: it is not here any more"),
        ({"ip_adapter": {"path": "ip/ip.safetensors"}}, r"ip_adapter.picture: there is none"),
    ],
)
def test_what_cannot_be_added_is_named_before_the_queue(server, shelf, asked, says):
    asked = json.loads(json.dumps(asked).replace("{root}", str(shelf)))
    with pytest.raises(Refused, match=says) as refused:
        server.run("submit", text_of(), {**QUICK, "additions": asked}, SESSION)
    assert len(refused.value.message.splitlines()) == 1
    checked = server.run("check", text_of(), {**QUICK, "additions": asked})
    assert not checked["ok"]
    assert checked["problems"][-1]["message"] == refused.value.message


def test_a_reference_without_an_ip_adapter_is_told_on_its_object(server):
    checked = server.run("check", text_of(reference=png(4)), QUICK)
    assert [(p["instance"], p["message"]) for p in checked["problems"]] == [(1, "the model has no IP-Adapter")]


def test_what_cannot_be_loaded_fails_in_a_sentence_and_leaves_the_model_alone(server):
    before = (made(server, text_of(), QUICK) / "scene_7.png").read_bytes()
    kept = server.run("keep_picture", base64.b64encode(png(1)).decode(), "x.png")["id"]
    for asked, says in (
        ({"lora": [{"path": "a.safetensors"}, {"path": "damaged.safetensors"}]}, "lora: "),
        ({"lora": [{"path": "toy.safetensors"}]}, "lora: "),
        ({"textual_inversion": [{"path": "damaged.safetensors"}]}, "textual_inversion: "),
        ({"ip_adapter": {"path": "a.safetensors", "picture": kept}}, "ip_adapter: "),
        ({"control": [{"path": "ip/image_encoder", "picture": kept}]}, "controlnet: "),
    ):
        job = server.run("submit", text_of(), {**QUICK, "additions": asked}, SESSION)["job"]
        state = server.finished(job)
        assert (state["state"], state["error"].startswith(says)) == ("failed", True), state
    assert (made(server, text_of(), QUICK) / "scene_7.png").read_bytes() == before


def test_files_to_choose_from(server, shelf):
    found = server.run("additions")
    assert found["files"] == [
        "a.safetensors",
        "b.safetensors",
        "damaged.safetensors",
        "ip/ip.safetensors",
        "toy.safetensors",
    ]
    assert {"edges", "sketch"} <= set(found["folders"])
    assert found["places"] == [str(shelf / "models")]


@pytest.fixture
def local(shelf, tmp_path):
    """A studio in this process."""
    engine = Engine(
        tiny_pipeline(tmp_path / "words"), {"weights": "w" * 64}, "tiny", Limits(kept_pictures=2), RunStore(tmp_path)
    )
    studio = Studio(engine, [shelf / "models"])
    yield studio
    studio.close()


def test_without_peft_the_extra_is_named(local, monkeypatch):
    monkeypatch.setattr("instancediffusion.additions._has_peft", lambda: False)
    asked = {"additions": {"lora": [{"path": "a.safetensors"}]}}
    with pytest.raises(ModelError, match=r"lora: LoRA files need PEFT.*instancediffusion\[adapters\]"):
        local.submit(text_of(), asked, SESSION)
    assert "instancediffusion[adapters]" in local.check(text_of(), asked)["problems"][-1]["message"]


def test_uploads_are_pictures_and_bounded(local):
    given = [local.keep_picture(base64.b64encode(png(k)).decode(), f"../../{k} ü.png") for k in (1, 2, 1, 3)]
    assert given[0] == given[2]
    assert given[0]["name"] == "1_.png"
    kept = sorted(path.parent.name for path in (local.store.root / "pictures").rglob("*.png"))
    assert kept == sorted(one["id"] for one in given[2:])
    for data in (b"", b"no picture", png(1)[:60]):
        with pytest.raises(Exception, match="file: "):
            local.keep_picture(base64.b64encode(data).decode(), "x")
    assert Image.open(local.shelf.pictures.path(given[3]["id"])).size == (64, 64)
