"""Configuration files: a slip is named by file and line, and files are merged as Snakemake does."""

import shlex
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from fixtures.repository import ROOT
from threedrs.config.load import check_config
from threedrs.config.yaml_files import check_yaml, config_option, merged, parse_values, read_yaml
from threedrs.errors import ConfigError
from threedrs.planning.cluster import read_cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n\tepochs: 1\n", "line 2: a tab indents the line; indent with spaces"),
        ("train:\n  epochs: 1\n pack: 2\n", "line 3: the line is indented otherwise than those"),
        ("train: {pack: 1}\n\ntrain: {}\n", "line 3: the key train stands in line 1 already"),
        ("train:\n  lora: {rank: 1, rank: 2}\n", "line 2: the key rank stands in line 2 already"),
        ("runs: [a\n", "line 2: expected ',' or ']'"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: \x00\n", "is not UTF-8 text"),
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
    with pytest.raises(ConfigError, match=r"own\.yaml: is not UTF-8 text"):
        read_yaml(path)
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


def test_all_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    texts = {"a.yaml": "a: [", "b.yml": "b:\n\t- 1", "c.json": '{\n\t"a": 1}', "d.json": '{"a": 1]'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    check_yaml([tmp_path / "c.json"])
    with pytest.raises(ConfigError) as error:
        check_yaml([tmp_path / name for name in texts])
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        str(tmp_path / "a.yaml"),
        str(tmp_path / "b.yml"),
        str(tmp_path / "d.json"),
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
    """As README types them."""
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


def test_values_have_the_types_of_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    entries = ["data={voxels: null, demo: null}", "eval={limit: 3}", "eval={bootstrap: 200}"]
    config = merged([], "plan", parse_values(entries))
    assert (config["data"]["voxels"], config["data"]["demo"]) == (None, None)
    assert (config["eval"]["limit"], config["eval"]["bootstrap"]) == (3, 200)
    _, problems = check_config(merged([], "plan", parse_values(["report={title: 2026}"])))
    assert problems == [
        "report.title: 2026 is not of type 'string'; to YAML this is a number, write '2026'"
    ]
    assert parse_values(["report={title: '2026'}"]) == {"report": {"title": "2026"}}


def test_a_file_of_another_kind_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    cluster = Path("config/cluster.yaml")
    for read in (lambda: merged([cluster], "plan"), lambda: check_yaml([cluster])):
        with pytest.raises(ConfigError) as error:
            read()
        line = str(error.value)
        assert line.startswith("config/cluster.yaml: has none of the keys data, frames, ")
        assert line.endswith("; give a file such as config/small.yaml")
    with pytest.raises(
        ConfigError, match=r"^config/config\.yaml: has none of .* config/cluster\.y"
    ):
        read_cluster(Path("config/config.yaml"))
    # One key may be a slip of one that there is, which the schema names.
    slip = tmp_path / "slip.yaml"
    slip.write_text("trian: {seed: 3}\n")
    check_yaml([slip])


def test_an_option_to_type_reads_back_as_the_values_it_was_made_of() -> None:
    section = {"root": "my rooms, 'all'/{a}/Büro", "demo": None}
    option, value = shlex.split(config_option("data", section))
    assert (option, parse_values([value])) == ("--config", {"data": section})
    assert "Büro" in value
    assert config_option("data", {"root": "out", "demo": None}) == (
        "--config 'data={root: out, demo: null}'"
    )


@pytest.mark.parametrize(
    "entry", ["data", "=x", "data.root=x", "data={root: a", "data=", "data={a: 1, a: 2}"]
)
def test_a_value_that_is_not_one_is_said(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"--config .*; type it as e\.g\. --config 'data="):
        parse_values([entry])
