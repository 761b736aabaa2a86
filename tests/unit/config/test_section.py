"""What is wrong with a section is a line that names the key and what it may be."""

import json

import pytest

from threedrs.config.load import load_config
from threedrs.errors import ConfigError


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
    assert any("model.size is '8b'; choose one of: tiny, mini, small, 7b" in line for line in lines)


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
        ("data", "root", "", "data.root: '' should be non-empty"),
        ("model", "path", "", "model.path: '' should be non-empty"),
        ("execution", "deepspeed", "", "execution.deepspeed: '' should be non-empty"),
        ("instructions", "ready", {"val": ""}, "instructions.ready.val: '' should be non-empty"),
        (
            "instructions",
            "ready",
            {"val": {"scanqua": "a"}},
            "instructions.ready.val.scanqua is not a key; did you mean scanqa?",
        ),
        ("instructions", "ready", {"vl": "a"}, "instructions.ready.vl is not a key; did you mean"),
        (
            "boxes",
            "ready",
            "boxes.json",
            "boxes.ready: 'boxes.json' does not hold {split} and {set}; add what is missing",
        ),
        (
            "data",
            "scenes",
            {"my-lab": {"captures": ["a"]}},
            "data.scenes: 'my-lab' is not a name; write it with letters, digits and _, beginning",
        ),
        (
            "instructions",
            "mixes",
            {"a b": {"balance": "all"}},
            "mixes: 'a b' is not a name; write it with letters, digits and _ -, beginning with a",
        ),
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
    config["data"]["root"] = "."
    config[section][key] = value
    assert load_config(config)[section][key] == value


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
