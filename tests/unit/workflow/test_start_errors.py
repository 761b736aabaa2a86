"""What Snakemake cannot start with is one line that says what to do."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from threedrs.workflow.start_errors import plain_error

RULES = [
    SimpleNamespace(name="report", output=[]),
    SimpleNamespace(name="scores", output=[]),
    SimpleNamespace(name="score", output=["results/eval/{run,3drs|base}/{benchmark}/metrics.json"]),
]
NAMES = {"run": ["3drs", "base"], "benchmark": ["scanqa", "sqa3d"], "teacher": ["vggt"]}


def said(text: str, exception: str) -> str:
    return plain_error(text, exception, RULES, NAMES)


def missing(target: str) -> str:
    text = f"MissingRuleException:\nNo rule to produce {target} (if you use input functions ...)."
    return said(text, "MissingRuleException")


def test_a_mistyped_target_names_the_nearest() -> None:
    assert missing("repotr") == (
        "threedrs: error: repotr: is not a target; choose one of: report, scores; "
        "did you mean report?"
    )


def test_a_mistyped_path_names_the_nearest_and_where_the_names_come_from() -> None:
    assert missing("results/eval/3dr/sqa3d/metrics.json") == (
        "threedrs: error: results/eval/3dr/sqa3d/metrics.json: no rule makes it; did you mean "
        "results/eval/3drs/sqa3d/metrics.json? The configuration's names are run (runs): 3drs, "
        "base; benchmark (eval.benchmarks): scanqa, sqa3d; teacher (teacher.name): vggt"
    )


def test_a_path_that_nothing_is_near_to() -> None:
    line = missing("results/zzz")
    assert "results/zzz: no rule makes it. The configuration's names are run (runs): 3drs" in line


@pytest.mark.parametrize(
    ("text", "exception", "line"),
    [
        (
            "Traceback (most recent call last):\n\n  File ...\n\nFileNotFoundError: [Errno 2] "
            "No such file or directory: 'nowhere.yaml'\n",
            "FileNotFoundError",
            "nowhere.yaml: is not there; give the path of a file that is",
        ),
        (
            "Traceback ...:\n\nFileNotFoundError: [Errno 2] No such file or directory: 'scenes'\n",
            "FileNotFoundError",
            "scenes: is not there; give the path of a file that is, and -- between files and "
            "targets",
        ),
        ("Traceback ...:\n  File ...\nKeyError: 'x'\n", "KeyError", "KeyError: 'x'"),
        (
            "WorkflowError:\nJob needs threads=4\nbut only 2.",
            "WorkflowError",
            "Job needs threads=4 but only 2.",
        ),
        ("", "CliException", "CliException"),
        (
            "Traceback ...:\n  File ...\nOSError: [Errno 30] Read-only file system: '/c/locks'\n",
            "OSError",
            "/c/locks: cannot be written (Read-only file system); make the folder writable for "
            "this user, or results/ a link to one that is, and run the same again",
        ),
        (
            "ProtectedOutputException in rule:\nWrite-protected output files for rule score:\n"
            "output: a.json, b.npz\naffected files:\n    results/a.json\n    results/b.npz",
            "ProtectedOutputException",
            "results/a.json: is write-protected; make it and its folder writable for this user, or "
            "results/ a link to a folder that is, and run the same again",
        ),
        ("Error: cores have to be specified", "CliException", "cores have to be specified"),
        (
            "WorkflowError:\nError:\n  ResourceConversionError: Resource 'mem_mb' returned 'x'.\n"
            "Wildcards: run=3drs\nTraceback: (rule train, line 81, /clone/train.smk)",
            "WorkflowError",
            "ResourceConversionError: Resource 'mem_mb' returned 'x'. Wildcards: run=3drs",
        ),
        (
            'ConfigError in file "common.smk", line 7:\nanswers: there is nothing to make\n'
            '  File "common.smk", line 7, in __onstart\n',
            "ConfigError",
            "answers: there is nothing to make",
        ),
    ],
)
def test_other_errors_are_one_line(text: str, exception: str, line: str) -> None:
    assert said(text, exception) == f"threedrs: error: {line}"


def test_a_folder_in_which_another_snakemake_works() -> None:
    line = said("LockException:\nError: Directory cannot be locked.", "LockException")
    assert "another Snakemake is at work" in line
    assert "wait until it has ended" in line


def test_a_slip_in_a_configuration_is_named_with_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, slip = tmp_path / "good.yaml", tmp_path / "slip.yaml"
    good.write_text("train: {seed: 3}\n")
    monkeypatch.chdir(tmp_path)  # where no profile names further files
    slip.write_text("train:\n  seed: 3\n\tpack: 4\n")
    monkeypatch.setattr("sys.argv", ["snakemake", "--configfile", str(good), str(slip), "all"])
    text = "WorkflowError:\nConfig file is not valid JSON or YAML. In case of YAML, make sure ..."
    line = "line 3: a tab indents the line; indent with spaces"
    assert said(text, "WorkflowError") == f"threedrs: error: {slip}: is not YAML ({line})"
    slip.write_text("[train, eval]\n")
    text = "WorkflowError:\nConfig file must be given as JSON or YAML with keys at top level."
    assert said(text, "WorkflowError").startswith(f"threedrs: error: {slip}: holds no sections")


@pytest.mark.parametrize(
    ("name", "exception", "line"),
    [
        ("f.gif", "UnicodeDecodeError", "f.gif: is not UTF-8 text; copy the file again, or"),
        ("config", "IsADirectoryError", "config: cannot be read (Is a directory); check the path"),
        ("notes.md", "WorkflowError", "notes.md: is not YAML (line 1: "),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, exception: str, line: str
) -> None:
    (tmp_path / "f.gif").write_bytes(b"GIF89a\xff")
    (tmp_path / "notes.md").write_text("**Notes**: [these](there)\n")
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["snakemake", "--configfile", name, "--", "all"])
    text = "WorkflowError:\nConfig file is not valid JSON or YAML."
    if exception != "WorkflowError":
        text = f"Traceback (most recent call last):\n  ...\n{exception}: what Python says"
    assert said(text, exception).startswith(f"threedrs: error: {line}")


@pytest.mark.parametrize("words", [["--configfile=slip.json", "--", "results/x.yaml"], ["scores"]])
def test_only_files_that_the_command_or_its_profile_names_are_searched_for_slips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (tmp_path / "slip.json").write_text('{"train":\n\t{"seed": 3]}\n')
    (tmp_path / "profiles/default").mkdir(parents=True)
    (tmp_path / "Snakefile").touch()
    profile = "cores: 1\n" if "--" in words else "configfile: [slip.json]\n"
    (tmp_path / "profiles/default/config.yaml").write_text(profile)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["snakemake", "--cores", "1", *words])
    text = "WorkflowError:\nConfig file is not valid JSON or YAML. In case of YAML, make sure ..."
    assert said(text, "WorkflowError") == (
        "threedrs: error: slip.json: is not JSON "
        "(Expecting ',' delimiter: line 2 column 12 (char 21))"
    )
