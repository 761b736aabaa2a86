"""Checkpoints made to harm: no code of theirs runs, no file outside is read, memory is bounded."""

import builtins
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fixtures import hostile
from fixtures.adapters import saved as saved  # a fixture
from fixtures.hostile import little_memory
from fixtures.students import student, tokenizer
from fixtures.training_steps import settings as train_settings
from fixtures.vggt_models import empty_model
from threedrs.errors import CheckpointError, ConfigError, ThreedrsError
from threedrs.io.files import write_json
from threedrs.models.checkpoint.folder import ADAPTER_FILE, tensor_files
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.lora.adapter import IN_FULL
from threedrs.models.model_settings import ModelSettings
from threedrs.teachers.vggt.weights import load_aggregator
from threedrs.training.engine import deepspeed_config

QWEN2_VL = {
    "model_type": "qwen2_vl",
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A student's folder that a test may damage."""
    save_student(student(), tokenizer(), tmp_path / "model")
    with little_memory():
        yield tmp_path / "model"


def load(folder: Path) -> Any:
    return load_student(ModelSettings(path=folder))


def one_line(call: Callable[[], Any], path: Path) -> str:
    return hostile.one_line(call, path, CheckpointError, most=500)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# Code in the folder


@pytest.mark.parametrize("tokenizer_class", ["Qwen2Tokenizer", "OwnTokenizer", None])
def test_classes_that_a_folder_brings_along_are_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tokenizer_class: str | None
) -> None:
    def asked(*arguments: object) -> str:
        raise AssertionError("asked whether to run code")

    monkeypatch.setattr(builtins, "input", asked)
    mark = folder.parent / "was_run"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass OwnTokenizer: pass\n")
    own = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"], "AutoModel": "own.Own"}
    edit(folder / "config.json", auto_map=own, trust_remote_code=True)
    edit(folder / "tokenizer_config.json", auto_map=own, tokenizer_class=tokenizer_class)
    with suppress(CheckpointError):  # where transformers knows no class by that name
        load(folder)
    assert not mark.exists()


# Paths


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3, None]
)
def test_an_index_names_files_beside_it(folder: Path, name: Any) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    assert "expected names of files beside it" in one_line(lambda: load(folder), index)
    index.write_text(json.dumps({"weight_map": "model.safetensors/.."}))
    assert "expected names of files beside it" in one_line(lambda: tensor_files(folder), index)


# Safetensors


def safetensors(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


HOSTILE = {
    "a header beyond the file": safetensors(b"{}", length=2**62),
    "a header of gigabytes": safetensors(b"{}", length=2**33),
    "a header that is no JSON": safetensors(b"\x80\x04cos\nsystem\n."),
    "a header that nests": safetensors(b'{"a":' * 100_000),
    "offsets beyond the file": safetensors(
        json.dumps({"a": entry(data_offsets=[0, 2**60])}).encode()
    ),
    "offsets that wrap": safetensors(
        json.dumps({"a": entry(data_offsets=[2**64 - 8, 2**64])}).encode(), bytes(8)
    ),
    "offsets that overlap": safetensors(
        json.dumps({"a": entry(), "b": entry(data_offsets=[4, 12])}).encode(), bytes(12)
    ),
    "offsets with a hole": safetensors(
        json.dumps({"a": entry(), "b": entry(data_offsets=[16, 24])}).encode(), bytes(24)
    ),
    "a shape of another length": safetensors(
        json.dumps({"a": entry(shape=[2**62, 4])}).encode(), bytes(8)
    ),
    "an unknown dtype": safetensors(json.dumps({"a": entry(dtype="object")}).encode(), bytes(8)),
    "nothing": b"",
}


@pytest.mark.parametrize("why", HOSTILE)
def test_safetensors(folder: Path, why: str) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(HOSTILE[why])
    assert "is damaged" in one_line(lambda: load(folder), weights)
    model = empty_model()
    assert "cannot be read as a checkpoint" in one_line(
        lambda: load_aggregator(model, weights), weights
    )


# config.json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected an integer"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776, expected an integer from 1"),
        ({"hidden_size": "4; import os"}, "hidden_size is '4; import os'"),
        ({"vocab_size": [1]}, "vocab_size is [1]"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"hidden_act": "os.system"}, "hidden_act is 'os.system', this version computes with"),
        ({"rope_parameters": {"rope_type": "evil"}}, "rope_parameters.rope_type is 'evil'"),
        ({"threedrs": [1]}, "format_version is None"),
        ({"threedrs": {"format_version": 1, "teacher_channels": "all"}}, "teacher_channels is"),
        ({"threedrs": {"format_version": 1, "teacher_channels": 0}}, "hidden_size is None"),
        (QWEN2_VL, "lacks vision_config"),
        (
            QWEN2_VL | {"vision_config": {"depth": 10**9}},
            "depth is 1000000000, expected an integer from 1 to 1024",
        ),
    ],
)
def test_configurations(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    edit(path, **changes)
    assert message in one_line(lambda: load(folder), path)


def test_pictures_of_a_vision_tower(folder: Path) -> None:
    path = folder / "config.json"
    own = json.loads(path.read_text())["threedrs"]
    own["vision_config"]["image_size"] = 2**20
    edit(path, threedrs=own)
    assert "image_size is 1048576, expected an integer from 1 to 8192" in one_line(
        lambda: load(folder), path
    )


def test_a_vocabulary_that_nests(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model":' * 100_000)
    assert "the tokenizer cannot be loaded" in one_line(lambda: load(folder), folder)


# Adapters


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"torch_dtype": "load"}, "torch_dtype or"),
        ("config.json", {"torch_dtype": ["float32"]}, "torch_dtype or"),
        (
            "config.json",
            {"threedrs": {"format_version": 1, "teacher_channels": 4, "base": {}}},
            "base",
        ),
        (ADAPTER_FILE, {"r": 10**9}, "rank 1000000000, at most 4096 is read"),
        (ADAPTER_FILE, {"base_model_name_or_path": "/nowhere"}, ""),
        (ADAPTER_FILE, {"peft_type": "os.system"}, "is not a LoRA adapter of ours"),
    ],
)
def test_adapters(
    saved: tuple[Any, Path],
    file: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    _, path = saved
    edit(path / file, **changes)
    if not message:  # the place that config.json records is tried next
        assert load(path)
        return
    assert message in one_line(lambda: load(path), path)


@pytest.mark.parametrize("why", ["offsets that overlap", "a header of gigabytes"])
def test_adapters_tensors(saved: tuple[Any, Path], why: str) -> None:
    _, path = saved
    (path / IN_FULL).write_bytes(HOSTILE[why])
    assert "is damaged" in one_line(lambda: load(path), path / IN_FULL)


# DeepSpeed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"tensorboard": {"enabled": True, "output_path": "/etc"}},
            "tensorboard is not a key; valid keys: zero_",
        ),
        ({"wandb": {"enabled": True}, "autotuning": {}}, "autotuning is not a key"),
        ({"flops_profiler": {"output_file": "/etc/x"}}, "flops_profiler is not a key"),
        ({"zero_optimization": 3}, "zero_optimization: 3 is not of type 'object'"),
        ([], "[] is not of type 'object'"),
    ],
)
def test_deepspeed_files(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "zero.json"
    write_json(path, {"zero_optimization": {"stage": 2}} | content if content else content)
    with pytest.raises(ConfigError) as caught:
        deepspeed_config(train_settings(deepspeed=str(path)), 1)
    assert message in str(caught.value)
    assert isinstance(caught.value, ThreedrsError)
    assert "\n" not in str(caught.value)
