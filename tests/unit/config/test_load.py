"""The shipped configurations are valid; runs inherit and override."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config.checks import batch_problem
from threedrs.config.load import load_config, old_places, resolve_run
from threedrs.config.resources import train_ranks
from threedrs.errors import ConfigError
from threedrs.models.backbones.registry import backbone_names
from threedrs.models.backbones.sizes import LAYERS, SIZES
from threedrs.models.checkpoint.load_save import empty_student
from threedrs.models.settings import ModelSettings
from threedrs.tasks.registry import TASKS


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def test_the_default_is_valid_and_complete(config: dict) -> None:
    loaded = load_config(config)
    assert loaded["frames"] == config["frames"]
    baseline = resolve_run(loaded, "baseline")
    assert baseline["teacher"]["name"] == "none"
    assert resolve_run(loaded, "3drs")["teacher"]["name"] == config["teacher"]["name"]
    assert "runs" not in baseline


def test_defaults_are_filled_in(config: dict) -> None:
    del config["frames"]["stride"], config["data"]["scans"]
    loaded = load_config(config)
    assert loaded["frames"]["stride"] == 10
    assert loaded["data"]["scans"] == "scannet/scans"


def test_the_papers_recipe(config: dict) -> None:
    paper = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    for section, values in paper.items():
        config[section].update(values)
    train = config["train"]
    assert (train["global_batch"], train["pack"], config["frames"]["count"]) == (16, 1, 32)
    assert (train["learning_rate"], train["learning_rate_vision_tower"]) == (1e-5, 2e-6)
    with pytest.raises(ConfigError, match=r"teacher\.weights") as error:
        load_config(config)
    # Only what nobody ships is missing.
    for line in str(error.value).splitlines():
        assert "data/models" in line


def test_every_problem_has_a_line(config: dict) -> None:
    config["train"]["epocs"] = 1
    config["frames"]["count"] = 0
    config["model"]["size"] = "8b"
    with pytest.raises(ConfigError) as error:
        load_config(config)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert any("train.epocs is not a key; did you mean epochs?" in line for line in lines)
    assert any("frames.count" in line for line in lines)
    assert any("model.size is '8b'; choose one of: tiny, small, 7b" in line for line in lines)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "data",
            "demo",
            {"scenes": 4, "seed": 0, "frmes": 50},
            "data.demo.frmes is not a key; did",
        ),
        ("data", "demo", {"scenes": 1, "seed": 0}, "data.demo.scenes: 1 is less than"),
        ("data", "demo", 3, "data.demo: 3 is not of type 'object', 'null'"),
        ("teacher", "weights", {"dinov3": "a"}, "weights.dinov3 is not a key; did you mean dinov2"),
        (
            "teacher",
            "weights",
            {"other": "a"},
            "weights.other is not a key; valid keys: vggt, dino",
        ),
        ("teacher", "weights", {"vggt": ""}, "teacher.weights.vggt: '' should be non-empty"),
        ("teacher", "weights", "", "teacher.weights: '' should be non-empty"),
        ("instructions", "ready", {"val": ""}, "instructions.ready.val: '' should be non-empty"),
        (
            "instructions",
            "ready",
            {"val": {"scanqua": "a"}},
            "instructions.ready.val.scanqua is not a key; did you mean scanqa?",
        ),
        ("boxes", "ready", "boxes.json", "boxes.ready: 'boxes.json' does not match"),
        (
            "supervision",
            "layer",
            "lst",
            "supervision.layer: 'lst' is not valid; valid: last, or",
        ),
        ("supervision", "layer", -1, "supervision.layer: -1 is not valid"),
    ],
)
def test_a_problem_below_a_section_of_several_forms_is_named(
    config: dict, section: str, key: str, value: object, message: str
) -> None:
    config[section][key] = value
    with pytest.raises(ConfigError) as error:
        load_config(config)
    (line,) = str(error.value).splitlines()
    assert message in line


def test_the_key_of_the_teacher_is_pointed_to(config: dict) -> None:
    config["supervision"]["teacher"] = "vggt"
    config["runs"]["other"] = {"supervision": {"teacher": "mae"}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert str(error.value).splitlines() == [
        "config: runs.other.supervision.teacher is not a key; "
        "the teacher is runs.other.teacher.name",
        "config: supervision.teacher is not a key; the teacher is teacher.name",
    ]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "demo", None),
        ("teacher", "weights", None),
        ("teacher", "weights", {"vggt": "a"}),
        ("boxes", "ready", None),
        ("boxes", "ready", "{split}_{set}.json"),
        ("instructions", "ready", {"train": "a.json", "val": {"scanqa": "b.json"}}),
        ("supervision", "layer", "last"),
        ("supervision", "layer", 2),
    ],
)
def test_every_form_of_such_a_section_is_taken(
    config: dict, section: str, key: str, value: object
) -> None:
    config[section][key] = value
    assert load_config(config)[section][key] == value


def test_defaults_of_the_demo_are_filled_in(config: dict) -> None:
    config["data"]["demo"] = {"scenes": 4, "seed": 0}
    filled = load_config(config)["data"]["demo"]
    assert filled == {"scenes": 4, "seed": 0, "frames": 104, "rounds": 1}


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("supervision", {"weight": float("nan")}, "supervision.weight is nan; expected a finite"),
        ("train", {"learning_rate": float("inf")}, "train.learning_rate is inf; expected a finite"),
        ("train", {"learning_rate": "1e-5"}, "to YAML this is a text, write 1.0e-05"),
        ("runs", {42: {"train": {"seed": 42}}}, "runs: the key 42 is not a text to YAML"),
        ("data", {"splits": "scannet/{nope}{split}.txt"}, "data.splits is .* KeyError"),
        ("data", {"splits": "scannet/{set}{split}.txt"}, "data.splits is .* KeyError"),
        ("boxes", {"ready": "{split}/{set}/{0}"}, "boxes.ready is .* cannot be filled in"),
    ],
)
def test_what_a_schema_does_not_see_is_named(
    config: dict, section: str, change: dict, line: str
) -> None:
    config[section].update(change)
    with pytest.raises(ConfigError, match=line) as error:
        load_config(config)
    assert "\n" not in str(error.value)


def test_a_run_that_overrides_into_nonsense_is_named(config: dict) -> None:
    config["runs"]["odd"] = {"train": {"pack": 3}}
    with pytest.raises(ConfigError, match=r"runs\.odd: train\.pack 3 .* may be 1, 2, 4, 8"):
        load_config(config)


def test_a_run_holds_nothing_that_does_not_concern_it(config: dict) -> None:
    config["teacher"] |= {"name": "vggt-tiny", "weights": {"dinov2": "a", "mae": "b"}}
    config["runs"]["other"] = {"teacher": {"name": "mae-tiny"}}
    before = {run: resolve_run(config, run) for run in config["runs"]}
    config["teacher"] |= {"weights": {"dinov2": "c"}}
    config["boxes"]["eval"] = "gt"
    assert {run: resolve_run(config, run) for run in config["runs"]} == before
    config["teacher"] |= {"seed": 3, "grid": "full"}
    config["supervision"]["weight"] = 0.25
    changed = {run for run in before if resolve_run(config, run) != before[run]}
    assert changed == {"3drs", "other"}
    assert before["baseline"]["teacher"] == {"name": "none", "weights": None}
    assert before["baseline"]["supervision"]["weight"] == 0.0


def test_a_benchmark_that_lacks_a_part_is_named_at_the_start(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "scanqa", replace(TASKS["scanqa"], measure=None))
    with pytest.raises(ConfigError, match="benchmark scanqa: lacks measure; docs/ADD_A_BENCHMARK"):
        load_config(config)


def test_the_order_of_keys_says_nothing_but_that_of_runs_and_mixes(config: dict) -> None:
    config["instructions"]["mixes"]["a"] = {"seed": 1, "balance": "all"}
    turned = {
        name: dict(reversed(section.items())) if isinstance(section, dict) else section
        for name, section in reversed(config.items())
    }
    turned["runs"] = {"baseline": config["runs"]["baseline"], "3drs": {}}
    one, other = load_config(config), load_config(turned)
    assert str(resolve_run(one, "3drs")) == str(resolve_run(other, "3drs"))
    assert (list(one["runs"]), list(other["runs"])) == (["3drs", "baseline"], ["baseline", "3drs"])
    assert list(one["instructions"]["mixes"]) == ["full", "a"]
    assert str(one["instructions"]["mixes"]["a"]) == "{'balance': 'all', 'seed': 1}"


def problems_of(config: dict) -> list[str]:
    """Return what is wrong with the run `3drs`, a line each."""
    config["runs"] = {"3drs": {}, "baseline": {"teacher": {"name": "none"}}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    lines = str(error.value).splitlines()
    return [line.removeprefix("config: ") for line in lines if "baseline" not in line]


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("model", {"attention": "flash"}, "flash computes in half precision; set train.precision"),
        ("supervision", {"layer": 3}, "supervision.layer: 3 is not a layer .* last, or 0 to 2"),
        ("execution", {"max_length": 1680}, "max_length is 1680; the 8 frames .* are 1680 tokens"),
        ("execution", {"deepspeed": "README.md"}, r"execution\.deepspeed: README\.md"),
        ("model", {"path": "docs"}, r"model\.path: docs/config\.json"),
    ],
)
def test_what_would_fail_hours_later_is_said_before(
    config: dict, section: str, change: dict, line: str
) -> None:
    config[section].update(change)
    (found,) = problems_of(config)
    assert re.match(rf"runs\.3drs: .*{line}", found)


def test_what_is_not_certain_is_let_through(config: dict, tmp_path: Path) -> None:
    """Fewer frames of a coverage, layers that a checkpoint decides, files on their way."""
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 40}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    config["frames"]["strategy"] = "coverage"
    config["supervision"]["layer"] = 39
    config["execution"]["max_length"] = 1680
    config["model"] |= {"size": "7b", "path": str(tmp_path)}
    load_config(config)
    config["supervision"]["layer"] = 40
    (found,) = problems_of(config)
    assert "supervision.layer: 40 is not a layer of this model; valid: last, or 0 to 39" in found
    config["model"]["path"] = str(tmp_path / "later")
    config["download"] = [{"repo": "a/b", "files": ["config.json"], "to": config["model"]["path"]}]
    load_config(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "not valid JSON|is no JSON|JSON"),
        ('{"zero_optimization": {"stage": 1}}', "stage is 1; expected 2 or 3"),
        ('{"zero_optimization": {"stage": 2}, "fp16": {}}', "remove fp16; the section"),
        ('{"zero_optimization": {"stage": 2}, "aio": {}}', "remove aio; it may hold"),
    ],
)
def test_a_deepspeed_file_that_training_refuses(
    config: dict, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    config["execution"]["deepspeed"] = str(file)
    (found,) = problems_of(config)
    assert re.search(rf"execution\.deepspeed: .*mine\.json.*({message})", found)


def test_ranks_are_those_of_the_resources_in_force() -> None:
    def train(**resources: object) -> object:
        return lambda name, asked: resources.get(name, asked)

    assert [train_ranks(size, train()) for size in SIZES] == [1, 1, 8]
    assert train_ranks("7b", train(gpu=4)) == 4
    assert train_ranks("7b", train(gpu=0, tasks=16)) == 16
    assert train_ranks("7b", train(gpu=0)) == 1
    assert train_ranks("7b", train(gpu=None)) is None
    assert train_ranks("7b", train(tasks=None)) is None


def test_a_batch_has_to_fit_the_ranks(config: dict, tmp_path: Path) -> None:
    config["model"] |= {"size": "7b", "random_weights": True}
    config["train"] |= {"global_batch": 16, "pack": 4}
    run = resolve_run(load_config(config), "3drs")

    def problem(ranks: int | None) -> str:
        return batch_problem(run, lambda name, asked: {"gpu": ranks}.get(name, asked), tmp_path)

    refused = (
        "train.pack 4 x 8 ranks x accumulation is not train.global_batch 16; with 8 ranks "
        "train.pack may be 1, 2; or change what the job asks for (set-resources)"
    )
    assert [problem(ranks) for ranks in (4, None, 8)] == [None, None, refused]
    run["train"]["global_batch"] = 12
    assert "train.global_batch may be 32, or another multiple of 32" in problem(8)


def test_what_was_trained_needs_no_ranks(config: dict, tmp_path: Path) -> None:
    config["train"] |= {"global_batch": 8, "pack": 8}
    run = resolve_run(load_config(config), "3drs")

    def refused() -> bool:
        return batch_problem(run, lambda name, asked: 8, tmp_path) is not None

    told = tmp_path / "config.json"
    told.write_text(json.dumps({"train": run["train"]}))
    assert refused()
    (tmp_path / "train.json").write_text("{}")
    assert not refused()
    run["train"]["pack"] = 4
    assert refused()
    told.write_text("[]")
    assert refused()


def test_a_bad_download_hides_nothing(config: dict) -> None:
    config["download"] = [
        {"repo": "a/b", "files": ["../x", "/y"], "to": "data"},
        {"repo": "a/c", "files": ["x"], "to": "data", "sha256": {"z": 64 * "0"}},
    ]
    config["train"]["mix"] = "none"
    lines = problems_of(config)
    assert lines[:3] == [
        "download of a/b: ../x leads out of data",
        "download of a/b: /y leads out of data",
        "download of a/c: sha256 names z, files does not",
    ]
    assert lines[3].startswith("runs.3drs: train.mix is 'none'")


def test_all_that_is_wrong_with_a_run_is_said(config: dict) -> None:
    config["model"] |= {"size": "7b", "grid": 7}
    config["train"] |= {"lora": {"rank": 4, "alpha": 8}, "tunable": ["heads"], "pack": 3}
    said = " ".join(problems_of(config))
    for part in ("model.grid: ", "model.path: ", "train.lora: ", "train.pack 3"):
        assert said.count(f"runs.3drs: {part}") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", backbone_names())
def test_sizes_that_the_check_knows_are_those_of_the_students(name: str) -> None:
    for size in SIZES:
        settings = ModelSettings(name=name, size=size, random_weights=size == "7b")
        student = empty_student(settings, 0)
        assert student.text_config.num_hidden_layers == LAYERS[size]
        assert student.family.grid.frame_tokens == settings.frame_tokens
    if name == "qwen2-vl":
        coarse = ModelSettings(name=name, grid=7)
        assert coarse.frame_tokens == empty_student(coarse, 0).family.grid.frame_tokens == 49
        assert ModelSettings(name=name, path=Path("m")).frame_tokens is None


def test_the_check_imports_no_torch() -> None:
    code = (
        "import sys, yaml; from threedrs.config.load import load_config; "
        "config = yaml.safe_load(open('config/config.yaml')); "
        "load_config(config); "
        "print({'torch', 'deepspeed', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_number_is_of_the_kind_that_its_key_has(config: dict) -> None:
    """JSON Schema takes 1000.0 for an integer and 1 for a number; hashes do not."""
    before = load_config(config)
    turned = json.loads(json.dumps(config), parse_int=float)
    turned["train"]["gradient_clip"] = 1
    turned["supervision"]["weight"] = 1
    turned["train"]["tunable"].reverse()
    assert json.dumps(load_config(turned)) == json.dumps(before)

    lora = {"rank": 4.0, "alpha": 8, "targets": ["v_proj", "q_proj"]}
    config["train"] |= {"max_steps": 1.0e3, "lora": lora}
    config["supervision"]["layer"] = 1.0
    config["runs"]["odd"] = {"train": {"pack": 2.0, "weight_decay": 0, "tunable": ["heads"]}}
    config["runs"]["odd"]["train"]["lora"] = None
    config["instructions"]["mixes"]["some"] = {"balance": "temperature", "temperature": 2}
    config["instructions"]["mixes"]["some"] |= {"size": 9.0, "caps": {"max_per_scene": 3.0}}
    loaded = load_config(config)
    train, odd = loaded["train"], loaded["runs"]["odd"]["train"]
    found = [train["max_steps"], train["lora"], loaded["supervision"]["layer"], odd]
    assert repr(found) == repr(
        [
            1000,
            {"alpha": 8.0, "dropout": 0.0, "rank": 4, "targets": ["q_proj", "v_proj"]},
            1,
            {"lora": None, "pack": 2, "tunable": ["heads"], "weight_decay": 0.0},
        ]
    )
    mix = loaded["instructions"]["mixes"]["some"]
    assert repr(mix["caps"]) == "{'max_per_scene': 3}"
    assert (repr(mix["size"]), repr(mix["temperature"])) == ("9", "2.0")


def test_the_shipped_settings_keep_their_text(config: dict) -> None:
    """Whoever runs them as they are has the hashes that the files' own text gives."""
    loaded = load_config(config)
    for section in ("frames", "supervision", "model", "train", "execution"):
        assert json.dumps(loaded[section], sort_keys=True) == json.dumps(
            config[section], sort_keys=True
        )


# Runs that build on others, and those that are switched off


def test_a_run_extends_another_one(config: dict) -> None:
    config["runs"] |= {
        "b": {"extends": "a", "train": {"seed": 2}},
        "a": {"extends": "baseline", "train": {"seed": 1, "epochs": 5}, "execution": {"keep": 1}},
    }
    loaded = load_config(config)
    assert loaded["runs"]["b"] == {
        "teacher": {"name": "none"},
        "train": {"epochs": 5, "seed": 2},
        "execution": {"keep": 1},
    }
    assert list(loaded["runs"]) == ["3drs", "baseline", "b", "a"]
    run = resolve_run(loaded, "b")
    assert (run["teacher"]["name"], run["train"]["epochs"], run["train"]["seed"]) == ("none", 5, 2)
    assert run["execution"]["keep"] == 1


def test_a_run_is_switched_off(config: dict) -> None:
    config["runs"]["baseline"] = None
    with pytest.raises(ConfigError, match=r"report\.baseline is 'baseline', which is no run"):
        load_config(config)
    config["report"]["baseline"] = "3drs"
    assert list(load_config(config)["runs"]) == ["3drs"]


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        ({"a": {"extends": "3dr"}}, ["runs.a.extends is '3dr', which is no run; choose one of"]),
        (
            {"a": {"extends": "baseline"}, "baseline": None},
            ["runs.a.extends is 'baseline', which is no run; choose one of: 3drs"],
        ),
        (
            {"a": {"extends": "b"}, "b": {"extends": "a"}},
            ["runs.a.extends: a -> b -> a is a circle", "runs.b.extends: b -> a -> b is a circle"],
        ),
        ({"a": {"extends": "b"}, "b": {"extends": "x"}}, ["runs.b.extends is 'x', which is no"]),
        ({"3drs": None, "baseline": None}, ["runs: all are switched off (null); keep one"]),
        ({"a": {"extend": "3drs"}}, ["runs.a.extend is not a key; did you mean extends?"]),
    ],
)
def test_a_run_that_leads_nowhere_is_named(
    config: dict, runs: dict[str, object], lines: list[str]
) -> None:
    config["runs"] |= runs
    with pytest.raises(ConfigError) as error:
        load_config(config)
    said = str(error.value).splitlines()
    assert len(said) == len(lines)
    for line, start in zip(said, lines, strict=True):
        assert line.startswith(f"config: {start}")


# The section execution, and where its keys stood before


def test_the_old_place_of_execution_counts_and_is_told(config: dict) -> None:
    assert old_places(config) == []
    config["train"] |= {"keep": 7, "wandb": {"project": "rooms"}}
    config["runs"]["3drs"] = {"train": {"workers": 3}, "execution": {"log_every": 2}}
    assert old_places(config) == [
        "train.keep, train.wandb, runs.3drs.train.workers stand in `train`, their old place; "
        "move them to the section `execution`"
    ]
    loaded = load_config(config)
    assert loaded["execution"]["keep"] == 7
    assert "keep" not in loaded["train"]
    run = resolve_run(loaded, "3drs")["execution"]
    assert (run["workers"], run["log_every"], run["keep"]) == (3, 2, 7)
    config["train"]["kep"] = 1
    with pytest.raises(ConfigError, match=r"train\.kep is not a key"):
        load_config(config)


def test_a_teachers_weights_are_looked_for_below_the_data_root(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    below = "scannet/posed_images_3d_feature_vggt"
    (tmp_path / below).mkdir(parents=True)
    config["data"] |= {"root": str(tmp_path), "demo": None}
    config["teacher"] |= {"name": "import", "weights": below}
    assert load_config(config)["teacher"]["weights"] == f"{tmp_path}/{below}"
    config["teacher"]["weights"] = {"import": below, "dinov2": "nowhere"}
    assert load_config(config)["teacher"]["weights"] == {
        "import": f"{tmp_path}/{below}",
        "dinov2": "nowhere",
    }
    config["teacher"]["weights"] = "config"  # there as it stands
    assert load_config(config)["teacher"]["weights"] == "config"
    config["teacher"]["weights"] = "nowhere"
    with pytest.raises(ConfigError, match=r"teacher\.weights: nowhere is not a folder"):
        load_config(config)
