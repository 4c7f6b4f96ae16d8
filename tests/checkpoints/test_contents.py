"""A file of weights is known by what it holds, whatever its name says."""

import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from instancediffusion.checkpoints import load_single_file, open_weights
from instancediffusion.errors import CheckpointError
from instancediffusion.pipeline import InstanceDiffusionPipeline

PARTS_OF_A_MODEL = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3),
    "first_stage_model.encoder.conv_in.weight": torch.zeros(4, 3, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": torch.zeros(8, 4),
}


def tensors(*names):
    return {name: torch.zeros(2, 2) for name in names}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"], ["a LoRA", "load_lora_weights"]),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], ["a LoRA", "load_lora_weights"]),
        (["lora_te_text_model_encoder_layers_0.hada_w1_a"], ["LoRA", "load_lora_weights"]),
        (
            ["control_model.input_blocks.0.0.weight", "control_model.time_embed.0.weight"],
            ["a ControlNet", "controlnet="],
        ),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x", "conv_in.weight"], ["a ControlNet"]),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], ["an IP-Adapter", "load_ip_adapter"]),
        (["emb_params"], ["a textual inversion", "load_textual_inversion"]),
        (["model.diffusion_model.joint_blocks.0.x_block.weight"], ["Stable Diffusion 3", "1.x, 2.x and XL"]),
        (["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"], ["FLUX", "1.x, 2.x and XL"]),
        (
            [
                "conditioner.embedders.0.model.transformer.resblocks.0.x",
                "model.diffusion_model.input_blocks.0.0.weight",
            ],
            ["refiner", "--refiner"],
        ),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], ["layout of diffusers", "folder"]),
        (["encoder.mid.block_1.conv1.weight", "decoder.mid.block_1.conv1.weight"], ["an autoencoder", "vae="]),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], ["CLIP text model"]),
        (["some.other.network"], ["some.other.network"]),
    ],
)
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_other_files_are_told_what_they_are_and_what_to_do_with_them(tmp_path, names, words, kind):
    path = tmp_path / "model.bin"  # the name says nothing
    if kind == "safetensors":
        save_file(tensors(*names), path)
    else:
        torch.save({"state_dict": tensors(*names)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_single_file(path)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1


def lengthened(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b'{"error": "Repository not found"}', "JSON"),
        (b"\x1f\x8b\x08" + bytes(60), "gzip"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (pickle.dumps({"model": 1}), "pickle"),
        (b"some text that is no model at all, and long enough", "not a PyTorch checkpoint"),
    ],
)
def test_what_people_take_for_weights(tmp_path, start, words):
    with pytest.raises(CheckpointError, match=words):
        open_weights(lengthened(tmp_path / "model.safetensors", start))


def test_a_file_cut_short_is_told_from_a_wrong_one(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(100, 100)}, whole)
    for keep in (len(whole.read_bytes()) - 1, 60):
        with pytest.raises(CheckpointError, match=r"interrupted|damaged"):
            open_weights(lengthened(tmp_path / "part.safetensors", whole.read_bytes()[:keep]))
    torch.save({"a": torch.zeros(100, 100)}, tmp_path / "whole.ckpt")
    data = (tmp_path / "whole.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match="interrupted"):
        open_weights(lengthened(tmp_path / "part.ckpt", data[: len(data) // 2]))
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(CheckpointError, match="refused"):
        open_weights(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"header|not"):
        open_weights(lengthened(tmp_path / "lie.safetensors", struct.pack("<Q", 40) + b"{" + bytes(100)))


def test_a_fine_tune_by_its_path_is_read_from_the_disk(tmp_path):
    """It was looked up on the hub, or taken for an interrupted download."""
    save_file(PARTS_OF_A_MODEL, tmp_path / "finetune.safetensors")
    torch.save({"state_dict": PARTS_OF_A_MODEL}, tmp_path / "finetune.ckpt")
    for path in (tmp_path / "finetune.safetensors", tmp_path / "finetune.ckpt"):
        assert open_weights(path).kind == "single_file"
        with pytest.raises(Exception, match=r"Stable Diffusion model in one file and brings none; pass adapter="):
            InstanceDiffusionPipeline.from_pretrained(path)
        with pytest.raises(CheckpointError, match=r"finetune.*not a whole one"):
            load_single_file(path)


def test_what_training_code_leaves_in_a_checkpoint_is_read_over(tmp_path):
    """Counters of numpy and names of PyTorch Lightning, as in the first checkpoints of Stable Diffusion."""

    class ModelCheckpoint:
        pass

    module = type(pickle)("pytorch_lightning.callbacks.model_checkpoint")
    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    import sys

    packages = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    for name in packages:
        sys.modules[name] = type(pickle)(name)
    sys.modules[module.__name__] = module
    state = {
        "state_dict": OrderedDict(PARTS_OF_A_MODEL),
        "global_step": 470000,
        "callbacks": {ModelCheckpoint: {"best_score": np.float64(0.5), "array": np.arange(3)}},
    }
    paths = [tmp_path / "new.ckpt", tmp_path / "old.ckpt"]
    try:
        torch.save(state, paths[0])
        torch.save(state, paths[1], _use_new_zipfile_serialization=False)
    finally:
        for name in [*packages, module.__name__]:
            del sys.modules[name]
    for path in paths:
        found = open_weights(path)
        assert found.kind == "single_file"
        assert set(found.tensors) == set(PARTS_OF_A_MODEL)
        assert found.content["global_step"] == 470000
