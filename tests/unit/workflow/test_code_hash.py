"""The hash of a stage's code changes with what can change its result, and with nothing else."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.workflow import code_hash as subject
from threedrs.workflow import code_walk
from threedrs.workflow.code_hash import STAGES, code_changes, code_hash
from threedrs.workflow.code_walk import reached_code

LOSS = '''"""Losses."""

from demo import numbers as n
from demo.numbers import scale


def loss(x: float) -> float:
    """Return the loss."""
    # a comment
    wide: float = scale(x)
    if wide < 0:
        raise ValueError(f"{wide} is below 0")
    logger.info("the loss of %s", x)
    return n.FACTOR * wide


def unused() -> None:
    print("never")
'''
NUMBERS = (
    "FACTOR = 2.0\n\n\ndef scale(x):\n    return _half(x)\n\n\ndef _half(x):\n    return x / 2\n"
)


@pytest.fixture
def clear() -> Iterator[Callable[[], None]]:
    caches = (subject._hash, subject._package_sha256)
    caches += (code_walk.file_of, code_walk._module, code_walk._digest)

    def empty() -> None:
        for cache in caches:
            cache.cache_clear()

    empty()
    yield empty
    empty()


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clear: Callable[[], None]
) -> Callable[..., str]:
    """Returns the hash of ``loss`` in a package of the given modules."""
    monkeypatch.setattr(code_walk, "PACKAGE", tmp_path)

    def hashed(**modules: str) -> str:
        for old in tmp_path.iterdir():
            old.unlink()
        for name, text in ({"losses": LOSS, "numbers": NUMBERS} | modules).items():
            renamed = text.replace("from demo.", "from threedrs.").replace("demo", "threedrs")
            (tmp_path / f"{name}.py").write_text(renamed)
        clear()
        return code_hash(None, "losses:loss")

    return hashed


SAME = {
    "docstring": {"losses": LOSS.replace("Return the loss.", "Return what is to fall.")},
    "comment": {"losses": LOSS.replace("# a comment", "# another")},
    "annotation": {"losses": LOSS.replace(": float", ": int")},
    "message of an error": {"losses": LOSS.replace("is below 0", "is negative")},
    "log message": {"losses": LOSS.replace("the loss of", "a loss of")},
    "import of a name": {
        "losses": LOSS.replace("from demo import numbers as n", "import demo.numbers").replace(
            "n.FACTOR", "demo.numbers.FACTOR"
        )
    },
    "a definition that nothing reaches": {"losses": LOSS.replace("never", "ever")},
    "order": {"numbers": "\n\n".join(reversed(NUMBERS.split("\n\n\n")))},
    "a helper moved to another file": {
        "numbers": NUMBERS.split("\n\n\ndef _half")[0].replace(
            "FACTOR = 2.0", "from demo.halves import _half\n\nFACTOR = 2.0"
        ),
        "halves": "def _half(x):\n    return x / 2\n",
    },
    "a module moved": {
        "losses": LOSS.replace("numbers as n", "lattice as n").replace("numbers", "lattice"),
        "lattice": NUMBERS,
        "numbers": "",
    },
}
# At import the walrus binds `seen` in the module, the others bind nothing there.
INNER = """SIZES = {x: 1 for x in (1, 2)}
KEY = (lambda: (x := 2))
if SIZES:
    def inner():
        x = 3
        return x
FOUND = [1 for y in SIZES if (seen := y)]
"""
OTHER = {
    "constant": {"numbers": NUMBERS.replace("2.0", "3.0")},
    "formula": {"losses": LOSS.replace("n.FACTOR * wide", "n.FACTOR + wide")},
    "private helper": {"numbers": NUMBERS.replace("x / 2", "x / 3")},
    "which error": {"losses": LOSS.replace("ValueError", "TypeError")},
    "condition of an error": {"losses": LOSS.replace("wide < 0", "wide < 1")},
    "a statement that is executed on import": {"numbers": f"{NUMBERS}\nset_mode(3)\n"},
    "which of two helpers of one name": {
        "losses": LOSS.replace("from demo.numbers import scale", "from demo.others import scale"),
        "others": "def scale(x):\n    return 7 * x\n",
    },
}


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_result_changes_no_hash(package: Callable[..., str], change: str) -> None:
    assert package(**SAME[change]) == package()


@pytest.mark.parametrize("change", OTHER)
def test_what_changes_a_result_changes_the_hash(package: Callable[..., str], change: str) -> None:
    assert package(**OTHER[change]) != package()


def test_what_a_comprehension_or_function_binds_is_no_name_of_its_module(
    package: Callable[..., str],
) -> None:
    """The `x` of `scale` and `_half` is theirs, whatever comprehensions beside them go through."""
    walked = f"{INNER}\n\n{NUMBERS}"
    assert package() == package(numbers=walked)
    assert package() == package(numbers=walked.replace("in (1, 2)", "in (1, 3)"))
    names = code_walk._module("threedrs.numbers").names
    assert {*names} == {"SIZES", "KEY", "inner", "FOUND", "seen", "FACTOR", "scale", "_half"}


def test_helpers_that_call_each_other_end(package: Callable[..., str]) -> None:
    circle = NUMBERS.replace("return x / 2", "return scale(x) if x > 1 else x")
    assert package(numbers=circle) != package()


def test_a_name_that_is_not_there_is_refused(package: Callable[..., str]) -> None:
    package()
    with pytest.raises(LookupError, match="losses:gain is not in the package"):
        code_hash(None, "losses:gain")


def test_a_script_counts_whole(package: Callable[..., str], tmp_path: Path) -> None:
    package()
    script = tmp_path.parent / f"{tmp_path.name}-script.py"

    def hashed(text: str) -> str:
        script.write_text(text)
        subject._hash.cache_clear()
        return code_hash(script=script)

    text = "from threedrs.losses import loss\n\nfactor = 3\nprint(loss(factor))\n"
    assert hashed(f"# a remark\n{text}") == hashed(text)
    assert hashed(text.replace("3", "4")) != hashed(text)
    reached = reached_code((), script)
    assert {("threedrs.losses", "loss"), ("threedrs.numbers", "_half")} <= set(reached)


def test_a_package_elsewhere_has_the_same_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clear: Callable[[], None]
) -> None:
    here = {stage: code_hash(stage) for stage in STAGES}
    copy = tmp_path / "copy"
    shutil.copytree(code_walk.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_walk, "PACKAGE", copy)
    clear()
    assert {stage: code_hash(stage) for stage in STAGES} == here


def test_hashes_are_kept_for_the_package_as_it_is(
    package: Callable[..., str], clear: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = code_walk.PACKAGE.with_name("work")
    (folder / ".snakemake").mkdir(parents=True)
    monkeypatch.chdir(folder)
    first, other = package(), package(**OTHER["constant"])
    assert package() == first
    assert package(**OTHER["constant"]) == other
    clear()
    with monkeypatch.context() as patch:
        patch.setattr(code_walk, "reached_code", None)  # found without parsing
        assert code_hash(None, "losses:loss") == other
    subject.KEPT.write_text("{")
    clear()
    assert code_hash(None, "losses:loss") == other


def test_what_is_left_out_is_there(clear: Callable[[], None]) -> None:
    names = {*subject.SHAPELESS, *(name for stage in STAGES.values() for name in stage.without)}
    assert [name for name in sorted(names) if code_walk.file_of(f"threedrs.{name}") is None] == []


def modules(stage: str) -> set[str]:
    chosen = STAGES[stage]
    without = (*subject.SHAPELESS, *chosen.without)
    return {module for module, _ in reached_code(chosen.entries, None, without)}


@pytest.mark.parametrize("script", ["candidates", "build_scenes"])
def test_scenes_reach_how_a_name_becomes_a_frame(script: str) -> None:
    path = ROOT / "workflow" / "scripts" / f"{script}.py"
    reached = reached_code((), path, subject.SHAPELESS)
    assert "frame_of_image" in {name for _, name in reached}


def test_training_reaches_loop_and_student_and_no_score_or_teacher() -> None:
    reached = modules("train")
    assert {"threedrs.training.loop", "threedrs.models.heads"} <= reached
    assert "threedrs.teachers.feature_store" in reached
    assert not {name for name in reached if name.startswith("threedrs.metrics")}
    assert "threedrs.teachers.vggt.aggregator" not in reached


def test_prediction_reaches_the_student_and_no_metric() -> None:
    reached = modules("predict")
    assert {"threedrs.models.inference", "threedrs.models.student"} <= reached
    assert not {
        name for name in reached if name.startswith(("threedrs.metrics", "threedrs.errors"))
    }
    # The next release alone makes nothing stale.
    assert "threedrs" not in reached
    assert "threedrs.tasks.base" not in reached  # nor does a published score


def test_awareness_reaches_the_student_that_it_measures() -> None:
    assert {"threedrs.models.student", "threedrs.models.voxel_awareness"} <= modules("awareness")


def test_a_start_says_which_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_changes(tmp_path) is None  # nothing was made yet
    (tmp_path / "scenes").mkdir()
    assert code_changes(tmp_path) is None
    monkeypatch.setattr(subject, "code_hash", lambda stage: f"new {stage == 'train'}")
    assert "the code of scenes, features, train, predict" in str(code_changes(tmp_path))
    monkeypatch.setattr(subject, "code_hash", lambda stage: f"new {stage == 'predict'}")
    said = "results: the code of train, predict has changed since the last start"
    assert code_changes(tmp_path) == said
    for damaged in ("[]", "{", None):
        (tmp_path / "code.json").unlink()
        if damaged is not None:
            (tmp_path / "code.json").write_text(damaged)
        assert "every stage that this start asks for may be made again once" in str(
            code_changes(tmp_path)
        )
        assert code_changes(tmp_path) is None
