"""A run on the Hub: the folder, its card, and the upload to a server on this machine."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fixtures.report_files import write_results
from fixtures.upload_hub import UploadHub, upload_hub
from threedrs.cli import app
from threedrs.errors import CheckpointError, ConfigError, DataError
from threedrs.io.files import read_json, write_json
from threedrs.models.checkpoint.folder import write_manifest
from threedrs.report.publication import upload, write_publication


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = write_results(tmp_path_factory.mktemp("made"))
    train = results / "train/3drs"
    config = read_json(train / "config.json")
    config["paths"] |= {"mix": "results/instructions/mixes/full.jsonl"}  # of another folder
    config["model"] |= {"path": "models/LLaVA-Video-7B-Qwen2", "size": "7b"}
    config["data"] = {"demo": None}
    write_json(train / "config.json", config)
    numbers = {"config_hash": "c0ffee", "versions": {"torch": "2.13.0"}}
    write_json(train / "train.json", {**read_json(train / "train.json"), **numbers})
    (train / "loss.png").write_bytes(b"curve")
    (train / "model").mkdir()
    (train / "model/model.safetensors").write_bytes(b"weights")
    (train / "model/README.md").write_text("# 3drs\n\n- learning rate 0.003\n")
    (train / "model/.snakemake_timestamp").touch()
    write_manifest(train / "model")
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    with upload_hub() as state:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", state.address)
        monkeypatch.setenv("HF_TOKEN", state.token)
        yield state


def test_the_card_has_scores_with_intervals_settings_licences_and_origin(results: Path) -> None:
    card = ModelCard.load(write_publication("3drs", results) / "README.md")
    measured = read_json(results / "eval/3drs/sqa3d/metrics.json")["metrics"]["em"]
    (em,) = [one for one in card.data.eval_results if one.dataset_type == "sqa3d"]
    assert em.metric_value == round(measured["value"], 2) == 66.67  # two of three answers
    assert em.metric_args == {
        "interval_95": [round(measured["low"], 2), round(measured["high"], 2)]
    }
    assert card.data.base_model == "lmms-lab/LLaVA-Video-7B-Qwen2"
    row = f"| 66.7 | {measured['low']:.1f} to {measured['high']:.1f} | 18 |"
    assert any(line.startswith("| SQA3D | EM") and line.endswith(row) for line in lines(card))
    for wanted in ("- learning rate 0.003", "Apache-2.0", "`c0ffee`", "sqa3d 4"):
        assert wanted in card.text
    assert "- Data: ScanNet's terms of use, and the licences of the benchmarks' annotations." in (
        lines(card)
    )


def test_the_card_of_generated_rooms_claims_nothing_of_scannet(results: Path) -> None:
    file = results / "train/3drs/config.json"
    config = read_json(file)
    config["data"]["demo"], config["model"] = {"scenes": 14}, {
        "name": "qwen2-vl", "size": "mini", "path": "/home/me/models/demo_student"
    }  # fmt: skip
    write_json(file, config)
    card = ModelCard.load(write_publication("3drs", results) / "README.md")
    assert {one.dataset_type for one in card.data.eval_results} == {
        "scanrefer-generated", "scan2cap-generated", "sqa3d-generated"
    }  # fmt: skip
    assert "scannet" not in card.data.tags
    assert "ScanNet's terms" not in card.text
    said = lines(card)
    base = (
        "- Base weights: those in the folder `demo_student`, under the licence that stands there."
    )
    assert base in said
    assert "/home/me" not in card.text
    (data,) = [line for line in said if line.startswith("- Data: ")]
    assert data.startswith("- Data: generated rooms and questions of our own, Apache-2.0.")


def lines(card: ModelCard) -> list[str]:
    return card.text.splitlines()


def test_the_folder_holds_no_text_of_the_benchmarks(results: Path) -> None:
    folder = write_publication("3drs", results)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    scores = [f"scores/{name}.json" for name in ("scan2cap", "scanrefer", "sqa3d")]
    training = [
        f"training/{name}" for name in ("config.json", "log.jsonl", "loss.png", "train.json")
    ]
    assert names == [
        "README.md",
        "model.safetensors",
        "provenance.json",
        *scores,
        *training,
    ]
    facts = read_json(folder / "provenance.json")
    assert facts["questions"] == {"scanrefer": 18, "scan2cap": 18, "sqa3d": 18}
    assert facts["records"] == {"sqa3d": 4}
    assert len(facts["code"]["train"]) == len(facts["model_sha256"]) == 64


def test_of_paths_outside_the_working_folder_only_names_are_published(results: Path) -> None:
    train = results / "train/3drs"
    base, mix = "/home/me/secret/models/base", "/scratch/me/mixes/full.jsonl"
    config = read_json(train / "config.json")
    config["model"]["path"], config["paths"]["mix"] = base, mix
    config["paths"] |= {"scenes": "results/scenes", "features": {"a_00": "../me/features/0.zarr"}}
    config["data"] |= {"captures": ["~/rooms/*", "captures/*"], "boxes": "/home/me/{split}.json"}
    write_json(train / "config.json", config)
    (train / "model/README.md").write_text(
        f"# 3drs\n\n- from {base}\n- mix ({mix}); {base}, and need it; training/model, {base}-b\n"
    )
    adapter = {"base_model_name_or_path": base, "r": 4}
    write_json(train / "model/adapter_config.json", adapter)
    described = {"threedrs": {"base": {"path": base, "trained_in_full": ["heads"]}}}
    write_json(train / "model/config.json", described)
    write_manifest(train / "model")
    metrics = read_json(results / "eval/3drs/sqa3d/metrics.json")
    metrics["provenance"]["predictions"] = "/home/me/run/predictions.jsonl"
    reason = (
        "/home/me/b.sens: no pose, as in ../me/b.txt and (~/me/c.txt); docs/DATA.md, and/or a / b"
    )
    metrics["left_out"] = {"questions": 1, "scenes": [{"scene": "scene0001_00", "reason": reason}]}
    write_json(results / "eval/3drs/sqa3d/metrics.json", metrics)

    folder = write_publication("3drs", results)
    texts = {
        path: path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".md")
    }
    assert len(texts) == 9
    assert not [path for path, text in texts.items() if "/me/" in text]
    public = read_json(folder / "training/config.json")
    assert public["model"]["path"] == "base"
    assert public["paths"] == {
        **config["paths"], "mix": "full.jsonl", "features": {"a_00": "0.zarr"}
    }  # fmt: skip
    assert public["paths"]["scenes"] == "results/scenes"
    assert public["data"]["captures"] == ["*", "captures/*"]
    assert public["data"]["boxes"] == "{split}.json"
    assert public["train"] == config["train"]
    assert read_json(folder / "adapter_config.json") == {
        **adapter,
        "base_model_name_or_path": "base",
    }
    excluded = read_json(folder / "scores/sqa3d.json")["left_out"]["scenes"][0]["reason"]
    assert excluded == "b.sens: no pose, as in b.txt and (c.txt); docs/DATA.md, and/or a / b"
    said = read_json(folder / "config.json")["threedrs"]["base"]
    assert said == {"path": "base", "trained_in_full": ["heads"]}
    assert (
        "- from base\n- mix (full.jsonl); base, and need it; training/model, base-b\n"
        in (folder / "README.md").read_text()
    )
    # What names no private folder is a link, so the folder takes no space.
    assert (folder / "training/train.json").is_symlink()
    assert read_json(train / "config.json") == config


@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("/home/me/models/LLaVA-Video-7B-Qwen2", "lmms-lab/LLaVA-Video-7B-Qwen2"),
        (
            "/hub/models--lmms-lab--LLaVA-Video-7B-Qwen2/snapshots/d0",
            "lmms-lab/LLaVA-Video-7B-Qwen2",
        ),
        ("results/train/LLaVA-Video-7B-Qwen2/model", "results/train/LLaVA-Video-7B-Qwen2/model"),
    ],
    ids=["downloaded", "of the Hub's cache", "a run of one's own"],
)
def test_an_adapter_names_its_base_as_the_hub_does(results: Path, folder: str, named: str) -> None:
    train = results / "train/3drs"
    config = read_json(train / "config.json")
    config["model"]["path"] = folder
    write_json(train / "config.json", config)
    write_json(train / "model/adapter_config.json", {"base_model_name_or_path": folder, "r": 4})
    write_manifest(train / "model")
    published = write_publication("3drs", results)
    assert read_json(published / "adapter_config.json") == {
        "base_model_name_or_path": named, "r": 4
    }  # fmt: skip
    of_the_hub = named.startswith("lmms-lab")
    card = ModelCard.load(published / "README.md")
    assert card.data.base_model == (named if of_the_hub else None)
    assert ("- Base weights: those in the folder `model`," in card.text) != of_the_hub


def test_a_private_upload(results: Path, hub: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    said = CliRunner().invoke(app, ["publish", "3drs", "--results", str(results)])
    assert said.exit_code == 0, said.output
    assert f"uploaded to {hub.address}/me/3drs" in said.output
    assert hub.private == {"me/3drs": True}
    held = hub.files["me/3drs"]
    assert held["model.safetensors"] == b"weights"
    assert json.loads(held["provenance.json"])["run"] == "3drs"
    assert b"| SQA3D | EM" in held["README.md"]
    # Once more, now that somebody has made it public.
    hub.private["me/3drs"] = False
    folder = results / "publish/3drs"
    with pytest.raises(ConfigError, match="me/3drs is public; give --public"):
        upload(folder, "3drs", public=False)
    assert upload(folder, "3drs", public=True).endswith("/me/3drs")
    hub.private["me/3drs"] = True
    with pytest.raises(
        ConfigError, match=r"is private; make it public at http\S*/me/3drs/settings"
    ):
        upload(folder, "3drs", public=True)


def test_a_dry_run_uploads_nothing(results: Path, hub: UploadHub) -> None:
    said = CliRunner().invoke(app, ["publish", "3drs", "-n", "--results", str(results)])
    assert said.exit_code == 0, said.output
    assert (results / "publish/3drs/README.md").is_file()
    assert hub.files == {}


def test_what_cannot_be_published(results: Path) -> None:
    write_json(results / "eval/3drs/sqa3d/metrics.json", limited(results, "sqa3d"))
    assert (
        "sqa3d"
        not in read_json(write_publication("3drs", results) / "provenance.json")["questions"]
    )
    (results / "train/3drs/model/model.safetensors").write_bytes(b"weight$")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        write_publication("3drs", results)
    shutil.rmtree(results / "eval/3drs")
    with pytest.raises(ConfigError, match=r"3drs: has no scores yet.*--cores all scores"):
        write_publication("3drs", results)


def limited(results: Path, benchmark: str) -> dict:
    metrics = read_json(results / f"eval/3drs/{benchmark}/metrics.json")
    return {**metrics, "limit": {"questions": 2, "of": 18}}


def test_a_hub_that_refuses_or_is_not_there(
    results: Path, hub: UploadHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_publication("3drs", results)
    hub.token = "another"
    with pytest.raises(DataError, match=r"the Hub refuses lab/3drs .*`hf auth login`"):
        upload(folder, "lab/3drs", public=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be reached"):
        upload(folder, "lab/3drs", public=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    shutil.rmtree(folder)
    said = CliRunner().invoke(app, ["publish", "3drs", "--results", str(results)])
    assert isinstance(said.exception, ConfigError)
    assert "there is no token; run `hf auth login`" in str(said.exception)
    assert not folder.exists()
