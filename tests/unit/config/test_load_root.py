"""The root of the data: missing, one level off, or filled by a download."""

from pathlib import Path

import pytest

from threedrs.config.load import load_config, root_problem
from threedrs.errors import ConfigError


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
    assert root_problem(config | {"download": []}) is not None
    assert root_problem(config | {"download": [entry]}) is None
    elsewhere = {**entry, "to": str(tmp_path / "models")}
    assert root_problem(config | {"download": [elsewhere]}) is not None


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
        assert root_problem(config | {"data": {**config["data"], "root": root}}) is None
    load_config(config, files=False)
