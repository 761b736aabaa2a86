"""Configuration files: a slip is named by file and line, and files are merged as Snakemake does."""

from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from fixtures.repository import ROOT
from threedrs.config.load import check_config
from threedrs.config.yaml_files import check_yaml, merged, parse_values, read_yaml
from threedrs.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n\tepochs: 1\n", "line 2: a tab indents the line; indent with spaces"),
        ("train:\n  epochs: 1\n pack: 2\n", "line 3: the line is indented otherwise than those"),
        ("train: {pack: 1}\n\ntrain: {}\n", "line 3: the key train stands in line 1 already"),
        ("train:\n  lora: {rank: 1, rank: 2}\n", "line 2: the key rank stands in line 2 already"),
        ("runs: [a\n", "line 2: expected ',' or ']'"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: \x00\n", "unacceptable character #x0000"),
        ("a: 2026-13-45\n", "month must be in 1..12"),
        ("- train\n", "holds no sections"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    with pytest.raises(ConfigError, match=r"own\.yaml: cannot be read .* correct the path"):
        read_yaml(path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: is not YAML \(not UTF-8"):
        read_yaml(path)
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


def test_all_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, text in (("a.yaml", "a: ["), ("b.yml", "b:\n\t- 1"), ("c.json", '{\n\t"a": 1}')):
        (tmp_path / name).write_text(text)
    check_yaml([tmp_path / "c.json"])
    with pytest.raises(ConfigError) as error:
        check_yaml([tmp_path / name for name in ("a.yaml", "b.yml", "c.json")])
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        str(tmp_path / "a.yaml"),
        str(tmp_path / "b.yml"),
    ]


def test_files_are_merged_as_snakemake_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    own = tmp_path / "own.yaml"
    own.write_text("runs: {new: {train: {seed: 1}}, baseline: null}\ndownload: [1]\nx: {}\n")
    expected = yaml.safe_load(Path("config/config.yaml").read_text())
    for path in (Path("config/paper.yaml"), own):
        update_config(expected, yaml.safe_load(path.read_text()))
    assert merged([Path("config/paper.yaml"), own], "plan") == expected
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run threedrs plan from the repository's folder"):
        merged([], "plan")


def test_values_count_as_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As README types them; Snakemake makes texts of the scalars within."""
    monkeypatch.chdir(ROOT)
    entries = [
        "runs={baseline: null, 3drs: {train: {seed: 7}}}",
        "report={baseline: 3drs}",
        "frames={stop_at_count: false}",
        "instructions={benchmarks: [scanqa, sqa3d]}",
        "eval={limit: 10, benchmarks: [scanqa]}",
    ]
    config = merged([], "eval", parse_values(entries))
    assert config["runs"]["baseline"] is None
    checked, problems = check_config(config)
    assert checked is not None
    assert problems == []
    assert list(checked["runs"]) == ["3drs"]
    assert checked["runs"]["3drs"]["train"]["seed"] == 7
    assert checked["frames"]["stop_at_count"] is False
    assert checked["frames"]["count"] == merged([], "eval")["frames"]["count"]
    assert (checked["eval"]["limit"], checked["eval"]["benchmarks"]) == (10, ["scanqa"])


def test_a_key_of_strings_takes_what_looks_like_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    entries = [
        "report={title: 2026}",
        "data={root: 2024, voxels: 1e3, selected_frames: null, demo: null}",
        "eval={benchmarks: [scanqa], limit: 3}",
        "runs={3drs: {checkpoint: 7}, baseline: null}",
        "instructions={ready: {val: {scanqa: 7}}}",
        "teacher={weights: {vggt: 1}}",
    ]
    config = merged([], "plan", parse_values(entries))
    assert config["report"]["title"] == "2026"
    data = config["data"]
    assert (data["root"], data["voxels"]) == ("2024", "1e3")
    assert (data["selected_frames"], data["demo"]) == (None, None)
    assert config["eval"]["limit"] == 3
    assert config["runs"]["3drs"]["checkpoint"] == "7"
    assert config["runs"]["baseline"] is None
    assert config["instructions"]["ready"]["val"] == {"scanqa": "7"}
    assert config["teacher"]["weights"] == {"vggt": "1"}
    # An empty text is not null where a string has to stand.
    assert parse_values(["data={root: ''}"]) == {"data": {"root": ""}}
    assert parse_values(["nothing={like: 3}"]) == {"nothing": {"like": 3}}


@pytest.mark.parametrize("entry", ["data", "=x", "data.root=x"])
def test_a_value_that_snakemake_refuses_is_said(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"--config .* Type it as e\.g\. --config 'data="):
        parse_values([entry])
