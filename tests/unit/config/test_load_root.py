"""The root of the data: missing, one level off, or filled by a download."""

import os
from pathlib import Path

import pytest

from threedrs.config.load import check_root, load_config
from threedrs.demo.write import write_marker
from threedrs.errors import ConfigError, DataError


def test_a_root_that_is_missing_is_said_alone(config: dict, tmp_path: Path) -> None:
    """What lies below it is missing too, and says nothing more."""
    (tmp_path / "published-demo").mkdir()
    config["data"] |= {"demo": None, "root": str(tmp_path / "publishd-demo")}
    config["teacher"] = {"name": "import", "weights": "scannet/posed_images_3d_feature_vggt"}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert str(error.value) == (
        f"config: data.root: {tmp_path}/publishd-demo is not a folder; did you mean "
        f"{tmp_path}/published-demo? name the folder that holds scannet/, as in --config "
        "'data={root: FOLDER}'"
    )
    config["data"]["root"] = str(tmp_path / "published-demo")
    with pytest.raises(ConfigError, match=r"runs\.3drs: teacher\.weights: scannet/posed_images_3d"):
        load_config(config)


def test_a_root_that_a_download_will_fill_need_not_be_there(config: dict, tmp_path: Path) -> None:
    root = tmp_path / "data"
    entry = {"repo": "lab/data", "files": ["a.json"], "to": str(root / "benchmark")}
    config["data"] |= {"demo": None, "root": str(root)}
    check_root(config | {"download": [entry]})
    elsewhere = {**entry, "to": str(tmp_path / "models")}
    for entries in ([], [elsewhere]):
        with pytest.raises(ConfigError, match="is not a folder"):
            check_root(config | {"download": entries})


def test_demo_data_is_not_written_over_other_data(config: dict, tmp_path: Path) -> None:
    root = tmp_path / "data"
    scan = root / "scannet/scans/scene0000_00/scene0000_00.sens"
    scan.parent.mkdir(parents=True)
    config["data"]["root"] = str(root)
    (root / "notes.txt").write_text("in no way")
    check_root(config)
    scan.write_bytes(b"a scan")
    with pytest.raises(DataError, match=r"holds scannet/scans/.*set data\.demo to null too"):
        check_root(config)
    with pytest.raises(ConfigError, match=r"data\.root: .*which demo data would replace"):
        load_config(config)
    check_root(config | {"data": {**config["data"], "demo": None}})
    # The annotations of `threedrs demo --layout published` are named as these.
    write_marker(root, "published", config["data"]["demo"]["scenes"], 7)
    with pytest.raises(DataError, match=r"holds demo\.json, which demo data would replace"):
        check_root(config)
    write_marker(root, "scans", config["data"]["demo"]["scenes"], 7)
    check_root(config)


@pytest.mark.parametrize(("given", "right"), [("data/scannet", "data"), (".", "data")])
def test_a_root_one_level_off_is_named(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, right: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/scannet/scans").mkdir(parents=True)
    config["data"] |= {"demo": None, "root": given}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert str(error.value) == (
        f"config: data.root: {given} does not hold the data, but {right} does; name that one"
    )
    for root in ("data", "data/scannet/scans"):  # right, and so far off that the files are named
        check_root(config | {"data": {**config["data"], "root": root}})
    load_config(config, files=False)


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"model": {"path": "locked/model"}}, "runs.3drs: model.path: locked/model: "),
        ({"teacher": {"name": "vggt", "weights": "locked/w.pt"}}, "runs.3drs: locked/w.pt: "),
        ({"data": {"demo": None, "root": "locked/data"}}, "data.root: locked/data: "),
    ],
)
def test_a_folder_that_may_not_be_entered_is_named(
    config: dict, monkeypatch: pytest.MonkeyPatch, change: dict, start: str
) -> None:
    """As the super-user, who runs tests, may enter every folder, a look into it is refused."""
    look = Path.stat

    def refused(path: Path, **options: bool) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    for section, keys in change.items():
        config[section] |= keys
    config["runs"] = {"3drs": {}}
    config["report"]["baseline"] = "3drs"
    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(ConfigError) as error:
        load_config(config)
    line = str(error.value)
    assert line.startswith(f"config: {start}")
    assert "(Permission denied); make the file readable or make the folder writable" in line
    assert "\n" not in line
