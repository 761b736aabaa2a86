"""What a user gets wrong ends in readable lines and a status other than 0, before any job."""

from pathlib import Path

import pytest

from fixtures.checkout import SMALL, Checkout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "train: {epocs: 2, epochs: 0}\nframes: {strategy: covrage, cuont: 3}\n"
            "eval: {benchmarks: [scanreffer]}\n",
            [
                "train.epocs is not a key; did you mean epochs?",
                "train.epochs: 0 is less than the minimum of 1",
                "frames.strategy is 'covrage'; choose one of: uniform",
                "frames.cuont is not a key; did you mean count?",
                "'scanreffer'; choose one of: scanrefer",
            ],
        ),
        (
            "train: {global_batch: 10, pack: 4}\nteacher: {name: vggt}\n"
            "model: {size: 7b, path: null}\n"
            "report: {baseline: base}\n",
            [
                "with 1 rank train.pack may be 1, 2, 5, 10",
                "needs teacher.weights",
                "size 7b needs a checkpoint folder",
                "which is not a run; choose one of: 3drs, baseline",
            ],
        ),
        (
            "data: {demo: null, root: nowhere}",
            ["config: data.root: nowhere is not a folder; name the folder that holds scannet/"],
        ),
    ],
    ids=["single keys", "keys that do not fit each other", "data"],
)
def test_all_that_is_wrong_is_said_at_once(
    checkout: Checkout, tmp_path: Path, text: str, said: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = checkout.snakemake("-n", "all", config=path)
    assert done.returncode != 0
    assert [line for line in said if line not in done.stdout] == []
    assert "Traceback" not in done.stdout
    assert not (checkout.folder / "results").exists()


def test_a_batch_is_held_against_the_gpus_that_training_gets(
    checkout: Checkout, tmp_path: Path
) -> None:
    path = tmp_path / "packed.yaml"
    model = "model: {size: 7b, path: null, random_weights: true}\n"
    path.write_text(model + "train: {global_batch: 16, pack: 4}\n")
    refused = "train.pack 4 x 8 ranks x accumulation is not train.global_batch 16"
    said = checkout.snakemake("-n", "all", config=path)
    assert said.returncode != 0
    assert refused in said.stdout
    assert "Traceback" not in said.stdout
    for fitting in (
        ("all", "--set-resources", "train:gpu=4"),
        ("all", "--set-resources", "train:gpu=attempt*2"),
        ("all", "--resources", "gpu=2"),
        ("scenes",),
    ):
        said = checkout.snakemake(*fitting, "-n", config=path)
        assert said.returncode == 0, said.stdout
    said = checkout.snakemake("all", "-n", "--set-resources", "predict:gpu=x", config=path)
    assert said.stdout.splitlines()[-1] == (
        "threedrs: error: gpu of rule predict is set to x, which is not a number; give one, or an "
        "expression such as attempt*2"
    )
    tasks = ("--set-resources", "train:tasks=8", "train:gpu=0")
    assert refused in checkout.snakemake("-n", "all", *tasks, config=path).stdout


def test_a_slip_in_a_file_is_named_by_its_line(checkout: Checkout, tmp_path: Path) -> None:
    """A key that stands twice, of which Snakemake takes one; a tab in the checkout's own file."""
    path = tmp_path / "bad.yaml"
    path.write_text("train:\n  epochs: 1\n\ntrain:\n  pack: 2\n")
    done = checkout.snakemake("-n", "all", config=path)
    assert done.returncode != 0
    assert f"{path}: is not YAML (line 4: the key train stands in line 1 already" in done.stdout
    assert "Traceback" not in done.stdout

    own = checkout.folder / "config" / "config.yaml"
    text = own.read_text()
    own.unlink()  # perhaps a link to the repository's
    own.write_text(text + "report2:\n\ttitle: x\n")
    lines = len(text.splitlines())
    done = checkout.snakemake("-n", "all")
    assert f"config/config.yaml: is not YAML (line {lines + 2}: a tab indents" in done.stdout


def test_a_mistyped_target_and_a_missing_file_are_a_line_each(checkout: Checkout) -> None:
    for target, config, said in (
        ("repotr", SMALL, "did you mean report?"),
        (
            "results/eval/3dr/sqa3d/metrics.json",
            SMALL,
            "no rule makes it; did you mean results/eval/3drs/sqa3d/metrics.json? The "
            "configuration's names are run (runs): 3drs, baseline; benchmark (eval.benchmarks): ",
        ),
        ("answers", SMALL, "answers: there is nothing to make, as no split of data.scenes has"),
        ("all", Path("nowhere.yaml"), "nowhere.yaml: is not there; give the path of a file"),
    ):
        done = checkout.snakemake("--cores", "1", target, config=config)
        assert done.returncode == 1
        line = done.stdout.splitlines()[-1]
        assert line.startswith("threedrs: error: ")
        assert said in line
        assert "Traceback" not in done.stdout
