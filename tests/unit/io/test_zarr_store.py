"""Stores whose manifests, links or pictures are not as this project writes them: one line each."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.hostile import little_memory
from fixtures.training_run import SCENES, SHARD, write_features, write_scene_inputs
from threedrs.errors import StoreError, ThreedrsError
from threedrs.scenes.store import SceneStore
from threedrs.teachers.image_decoding import preprocess_image
from threedrs.teachers.teacher import ImageFormat


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_scene_inputs(folder, SCENES[0], 0)
    write_features(folder)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A scene store that a test may damage."""
    path = shutil.copytree(made / f"results/scenes/{SCENES[0]}.zarr", tmp_path / "a.zarr")
    with little_memory():
        yield path


@pytest.fixture
def shard(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / SHARD, tmp_path / "train-000.zarr"))


def one_line(call: Callable[[], Any], path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def chunk(store: Path, array: str) -> Path:
    return next(path for path in (store / array / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("stray", ["decoy", ".nfs0001", ".0.AbC123"])
def test_other_files_do_not_stand_for_chunks(store: Path, tmp_path: Path, stray: str) -> None:
    opened = SceneStore.open(store)
    (store / "pose/c/0").rename(tmp_path / "outside")
    (store / "pose/c" / stray).write_bytes(b"not a chunk")
    assert "No such file" in one_line(opened.poses, store)


def test_a_store_may_be_a_link_itself(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(store)
    SceneStore.open(tmp_path / "link.zarr").verify()


def test_pictures_that_start_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow hands PostScript to Ghostscript.
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started {arguments}")

    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, started)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ThreedrsError, match="is not a readable image"):
        preprocess_image(program, ImageFormat(width=168, patch=14))
