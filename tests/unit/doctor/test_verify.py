"""Damage in results is found, named, and cleared away so that it can be made again."""

import errno
import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.training_run import SCENES, SHARD, write_features, write_scene_inputs
from threedrs.cli import app
from threedrs.doctor.verify import verify_results
from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import sha256_of_file, write_json
from threedrs.models.checkpoint.folder import hash_files, require_whole, write_manifest
from threedrs.scenes.store import SceneStore

MANIFEST = "scenes/shards/train-000.json"
MIX = "instructions/mixes/full.jsonl"
MODEL = "train/3drs/model"


def record(folder: Path, name: str, *, endtime: float, starttime: float, inputs: dict) -> None:
    """Write what Snakemake keeps of the job that made ``name``; a long name is cut in parts.

    ``inputs`` maps each input to its checksum; None where none is kept.
    """
    code = urlsafe_b64encode(name.encode()).decode()
    *head, last = [code[start : start + 40] for start in range(0, len(code), 40)]
    path = folder.joinpath(".snakemake", "metadata", *(f"@{part}" for part in head), last)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {source: checksum for source, checksum in inputs.items() if checksum}
    facts = {
        "endtime": endtime,
        "starttime": starttime,
        "input": [*inputs],
        "input_checksums": found,
    }
    path.write_text(json.dumps(facts))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Stores of two scenes, their features, a model, and a mix made at 1000 and read at 1010."""
    folder = tmp_path / "results"
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(tmp_path, scene, seed)
    write_features(tmp_path)
    stores = {scene: SceneStore.open(folder / "scenes" / f"{scene}.zarr") for scene in SCENES}
    rows = {scene: {"content": store.content_hash()} for scene, store in stores.items()}
    write_json(folder / MANIFEST, {"format_version": 1, "scenes": rows})
    model = folder / MODEL
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(range(200)))
    (model / "config.json").write_text("{}")
    write_manifest(model)
    (model / ".snakemake_timestamp").touch()
    (model.parent / "checkpoints/step-00000002").mkdir(parents=True)
    mix = folder / MIX
    mix.parent.mkdir(parents=True)
    mix.write_text('{"id": 1}\n')
    os.utime(mix, (1000, 1000))
    made_from = {f"results/{MANIFEST}": None}
    record(tmp_path, f"results/{MIX}", endtime=1000.0, starttime=990.0, inputs=made_from)
    read_mix(tmp_path, starttime=1010.0)
    return folder


def read_mix(folder: Path, *, starttime: float) -> None:
    """Let training read the mix as it is now."""
    name = f"results/{MIX}"
    checksum = f"sha256:{sha256_of_file(folder / name)}"
    reader = "results/train/3drs/train.json"
    record(
        folder, reader, endtime=2000.0, starttime=starttime, inputs={name: checksum, "src/a": "b"}
    )


def flip(path: Path) -> None:
    """Change one byte in the middle of a file; its date stays."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def data_file(folder: Path) -> Path:
    return next(path for path in sorted(folder.rglob("c/**/*")) if path.is_file())


def found(results: Path) -> list[tuple[str, str | None]]:
    """Where damage is found, and what must go; None: nothing."""
    return [
        (damage.problem, damage.remake and damage.remake.relative_to(results).as_posix())
        for damage in verify_results(results)
    ]


def test_undamaged_results_are_fine(results: Path) -> None:
    assert verify_results(results) == []


def test_a_flipped_byte_in_a_scene_store(results: Path) -> None:
    flip(data_file(results / "scenes" / f"{SCENES[1]}.zarr" / "rgb"))
    ((problem, remake),) = found(results)
    assert remake == MANIFEST
    assert f"{SCENES[1]}.zarr: array rgb is damaged" in problem
    assert "\n" not in problem
    assert "snakemake" not in problem


def test_a_flipped_byte_in_a_feature_store(results: Path) -> None:
    flip(data_file(results.parent / SHARD / SCENES[0]))
    ((problem, remake),) = found(results)
    assert remake == "features/vggt-tiny/train-000.zarr/manifest.json"
    assert SCENES[0] in problem


@pytest.mark.parametrize("content", ['{"scenes": {"scene0000_00"', "[]", '{"scenes": {"..": {}}}'])
def test_a_damaged_manifest_of_scenes(results: Path, content: str) -> None:
    (results / MANIFEST).write_text(content)
    ((problem, remake),) = found(results)
    assert remake == MANIFEST
    assert problem.startswith(str(results / MANIFEST))


def test_a_store_other_than_the_listed_one(results: Path) -> None:
    rows = {scene: {"content": "0" * 64} for scene in SCENES[:1]}
    write_json(results / MANIFEST, {"format_version": 1, "scenes": rows})
    ((problem, remake),) = found(results)
    assert (remake, "is not the store that" in problem) == (MANIFEST, True)


def test_a_damaged_model(results: Path) -> None:
    flip(results / MODEL / "model.safetensors")
    (results / MODEL / "config.json").unlink()
    ((problem, remake),) = found(results)
    assert remake == f"{MODEL}.json"
    assert "model/config.json: does not fit its hash" in problem


def test_a_model_is_checked_before_it_is_asked(results: Path) -> None:
    model = results / MODEL
    require_whole(model, hash_files(model))
    flip(model / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: .* run `snakemake .*model\.json`"
    ):
        require_whole(model, hash_files(model))
    flip(model / "model.safetensors")
    (model / "more.bin").touch()
    with pytest.raises(CheckpointError, match=r"more\.bin: does not fit"):
        require_whole(model, hash_files(model))
    model.with_name("model.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is not the manifest of a trained model; delete"):
        require_whole(model, hash_files(model))
    model.with_name("model.json").unlink()  # a model from elsewhere has none
    require_whole(model, {})


@pytest.mark.parametrize(
    ("date", "text", "read_again", "said", "goes"),
    [
        (1000, '{"id": 1}\n', None, None, None),  # as it was
        (5000, '{"id": 1}\n', None, None, None),  # touched
        (1000, '{"id": 2}\n', None, "is not as it was", MIX),  # rotten: the date is the old one
        (5000, '{"id": 2}\n', None, "is not as it was", MIX),  # edited
        # Edited or touched, then read so: the date alone speaks, and nothing is removed for it.
        (5000, '{"id": 2}\n', 6000, "changed after it was made, by its date alone; it stays", None),
    ],
)
def test_a_file_is_compared_with_what_its_readers_found(
    results: Path,
    date: int,
    text: str,
    read_again: float | None,
    said: str | None,
    goes: str | None,
) -> None:
    mix = results / MIX
    mix.write_text(text)
    os.utime(mix, (date, date))
    if read_again is not None:
        read_mix(results.parent, starttime=read_again)
    problems = found(results)
    assert [remake for _, remake in problems] == ([goes] if said else [])
    assert all(said in problem for problem, _ in problems)


def test_what_only_a_whole_training_would_make_again_stays(results: Path) -> None:
    history = results / "train/3drs/log.jsonl"
    history.write_text("{}\n")
    name = f"results/{history.relative_to(results).as_posix()}"
    record(results.parent, name, endtime=history.stat().st_mtime, starttime=990.0, inputs={})
    record(
        results.parent,
        "results/report/index.html",
        endtime=9e9,
        starttime=9e9,
        inputs={name: "sha256:0"},
    )
    flip(results / MODEL / "model.safetensors")
    assert [remake for _, remake in found(results)] == [f"{MODEL}.json", "train/3drs/log.jsonl"]
    (results / "train/3drs/checkpoints/step-00000002").rmdir()
    said = found(results)
    assert [remake for _, remake in said] == [None, None]
    assert all("would be trained again from the start" in problem for problem, _ in said)
    repaired = CliRunner().invoke(app, ["verify", "--results", str(results), "--repair"])
    assert (repaired.exit_code, "snakemake" in repaired.output) == (1, False)
    assert history.is_file()
    assert (results / f"{MODEL}.json").is_file()


def test_what_cannot_be_read_is_named_and_stays(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("threedrs.doctor.verify.sha256_of_file", fails)
    monkeypatch.setattr("threedrs.io.files.sha256_of_file", fails)
    said = found(results)
    assert [remake for _, remake in said] == [None, None]
    assert said[0][0].startswith(f"{results / MODEL}/config.json: cannot be read (Input/output")
    assert said[1][0].startswith(f"{results / MIX}: cannot be read (Input/output error); it stays")


def test_a_file_made_anew_is_not_compared_with_what_was_read_before(results: Path) -> None:
    mix = results / MIX
    mix.write_text('{"id": 3}\n')
    os.utime(mix, (3000, 3000))
    record(results.parent, f"results/{MIX}", endtime=3000.0, starttime=2990.0, inputs={})
    assert found(results) == []


def test_records_that_are_no_records_and_files_elsewhere_are_passed_over(results: Path) -> None:
    folder = results.parent
    (folder / ".snakemake" / "metadata" / "no base64!").write_text("{")
    outside = "results/../elsewhere"
    (folder / "elsewhere").write_text("x")
    record(folder, outside, endtime=1.0, starttime=0.0, inputs={})
    record(folder, "results/b", endtime=9.0, starttime=5.0, inputs={outside: "sha256:0"})
    assert found(results) == []


def test_without_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; run this where"):
        verify_results(tmp_path / "results")
    (tmp_path / "results").mkdir()
    assert verify_results(tmp_path / "results") == []
    (tmp_path / "results/train").mkdir()
    (tmp_path / "results/train/notes.md").touch()
    with pytest.raises(DataError, match="holds no results of the workflow; name the folder"):
        verify_results(tmp_path / "results/train")


def test_the_command_clears_what_is_damaged_and_says_how_to_go_on(results: Path) -> None:
    run = CliRunner()
    fine = run.invoke(app, ["verify", "--results", str(results)])
    assert (fine.exit_code, "no damage found" in fine.output) == (0, True)
    flip(data_file(results / "scenes" / f"{SCENES[0]}.zarr" / "depth"))
    (results / MIX).write_text("cut")
    shown = run.invoke(app, ["verify", "--results", str(results)])
    assert shown.exit_code == 1
    assert f"`threedrs verify --results {results} --repair` removes" in shown.output
    assert (results / MANIFEST).exists()
    repaired = run.invoke(app, ["verify", "--results", str(results), "--repair"])
    assert repaired.exit_code == 1
    lines = repaired.output.splitlines()
    assert lines[-3:-1] == [
        f"snakemake --cores all {results / MANIFEST}",
        f"snakemake --cores all {results / MIX}",
    ]
    assert lines[-1] == "snakemake --cores all all"
    assert not (results / MANIFEST).exists()
    assert not (results / MIX).exists()
    assert (results / "scenes" / f"{SCENES[0]}.zarr").is_dir()
    assert run.invoke(app, ["verify", "--results", str(results)]).exit_code == 0
