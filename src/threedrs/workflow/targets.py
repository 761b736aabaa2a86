"""What the rules of the workflow expand over, and what a job reads, asks for and is told.

The rule files hold names and paths; here stands what follows from the configuration. Functions
whose argument is ``wildcards`` are handed to Snakemake as they are.
"""

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from threedrs.config.checks import batch_problem
from threedrs.config.load import Config, data_layout, resolve_run
from threedrs.config.schema import INITIAL
from threedrs.demo.write import demo_scenes, read_marker
from threedrs.errors import ConfigError
from threedrs.inputs import required_files
from threedrs.inputs.captures import capture_files, capture_splits
from threedrs.inputs.download import downloads
from threedrs.inputs.scene_sources import start_table
from threedrs.scannet.layout import SPLITS
from threedrs.tasks.base import TRAINING_SPLIT
from threedrs.tasks.registry import evaluation_name, find_task
from threedrs.teachers.known_teachers import NO_TEACHER, get_teacher
from threedrs.workflow.moved_inputs import unhashed
from threedrs.workflow.rule_helpers import Need

CONTROL_MARK = "-"  # between the names of a benchmark and a control; no benchmark's name has it


class Targets:
    """The lists and files of one checked configuration.

    Raises:
        ConfigError: a control shows another room, and there is one room only.
        DataError: a file of the user's is missing or malformed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.layout = data_layout(config)
        self._scan = functools.cache(self.layout.scan)  # several lists of files ask for a scan
        # Where the data is changes no result: rules give `root` as a Path, which Snakemake does not
        # compare. What is prepared and what arrives are inputs of the rules that read it.
        apart = {"root", "boxes", "records", "arriving"}
        self.data = self.layout.model_dump(mode="json", exclude=apart)
        self.downloads = downloads(config)
        self.demo = config["data"]["demo"]
        # How the rooms were generated, if they were. `threedrs demo` writes them elsewhere, too.
        self.generated = self.demo or read_marker(self.layout.root)
        # Whether frames are chosen by the voxels that they see.
        self.coverage = config["frames"]["strategy"] != "uniform"
        self.splits = required_files.scene_splits(config)
        if self.demo:
            generated = demo_scenes(self.demo["scenes"])
            self.scenes = {split: generated[split] for split in self.splits}
        else:
            required_files.missing_inputs(self.layout, config)
            self.scenes = {split: self.layout.scenes(split) for split in self.splits}
        # Shard -> its scenes: of the needed splits, and of the scenes whose features are extracted.
        self.scene_shards = self._shards(self.scenes)
        self.captures = capture_splits(config)
        self.capture_shards = self._shards({k: [*v.scenes] for k, v in self.captures.items()})
        self.asked = [split for split, own in self.captures.items() if own.questions]
        self.feature_shards = required_files.shards(
            "train", self.scenes.get("train", []), config["teacher"]["scenes_per_shard"]
        )
        self.resolved = {run: resolve_run(config, run) for run in config["runs"]}
        self.trained = required_files.trained_runs(config)
        # Sorted, as Snakemake compares lists in the order that they have.
        names = {self.resolved[run]["teacher"]["name"] for run in self.trained}
        self.teachers = sorted(names - {NO_TEACHER})
        self.mixes = list(config["instructions"]["mixes"]) if self.trained else []
        self.benchmarks: list[str] = config["eval"]["benchmarks"]
        # Those of them that runs are trained on too, so that their training records are made.
        made = required_files.conversions(config)
        self.trained_benchmarks = [b for b in self.benchmarks if (b, TRAINING_SPLIT) in made]

        # What is asked again as a control, a benchmark of a run by the name of both.
        self.controls = [
            f"{benchmark}{CONTROL_MARK}{control}"
            for control in config["eval"]["controls"]
            for benchmark in self.benchmarks
            if not find_task(benchmark).grounding
        ]
        # Scans of one name before the underscore are of the same room.
        rooms = sorted({scene.partition("_")[0] for scene in self.scenes["val"]})
        if "other_room" in config["eval"]["controls"] and len(rooms) == 1:
            raise ConfigError(
                f"config: eval.controls has other_room, and {rooms[0]} is the only room of val; "
                "add scans of other rooms, or remove other_room"
            )

    def _shards(self, scenes: dict[str, list[str]]) -> dict[str, list[str]]:
        size = self.config["data"]["scenes_per_shard"]
        parts = [required_files.shards(split, members, size) for split, members in scenes.items()]
        return {name: members for part in parts for name, members in part.items()}

    def names(self) -> dict[str, list[str]]:
        """Return the values of each wildcard in the paths of results."""
        return {
            "run": list(self.resolved),
            "benchmark": [*self.benchmarks, *self.controls],
            "teacher": self.teachers,
            "mix": self.mixes,
            "shard": [*self.scene_shards, *self.feature_shards, *self.capture_shards],
            "split": [*self.splits, *self.captures],
        }

    # Scenes and their shards

    def scan_table(self) -> str:
        """Return a table of which scenes have which files, for the start of a run."""
        own = [
            f"own captures, {split} ({len(found.scenes)}): {', '.join(found.scenes)}"
            for split, found in self.captures.items()
        ]
        if self.demo:
            return "\n".join(["Where scenes come from: the demo data", *own])
        table = start_table(
            self.layout,
            self.scenes,
            stride=self.config["frames"]["stride"],
            coverage=self.coverage,
            records=required_files.conversions(self.config),
        )
        return "\n".join([table, *own])

    def split_shards(self, split: str) -> list[str]:
        """Return the scene shards of a split, ScanNet's or of own captures."""
        every = (*self.scene_shards, *self.capture_shards)
        return [shard for shard in every if shard.startswith(f"{split}-")]

    def shard_captures(self, shard: str) -> dict[str, Path]:
        """Return scene -> capture of a shard of own captures."""
        paths = self.captures[shard.rpartition("-")[0]].scenes
        return {scene: paths[scene] for scene in self.capture_shards[shard]}

    def capture_files(self, shard: str) -> list[Path]:
        """Return what in a shard's own captures makes it stale, beside the captures themselves."""
        return [
            file for path in self.shard_captures(shard).values() for file in capture_files(path)
        ]

    def scene_shards_of(self, scenes: Iterable[str]) -> list[str]:
        """Return the scene shards that hold any of the scenes."""
        wanted = set(scenes)
        return [shard for shard, members in self.scene_shards.items() if wanted & set(members)]

    def there(self, *paths: Path | None) -> list[Path]:
        """Return those of ``paths`` that a job can wait for: they exist or the run makes them."""
        return [path for path in paths if path and (self.demo or self.layout.is_there(path))]

    def scan_files(self, shard: str, *kinds: str) -> list[Path]:
        """Return the files of the given kinds of a shard's scans."""
        scans = map(self._scan, self.scene_shards[shard])
        return [getattr(scan, kind) for scan in scans for kind in kinds]

    def box_files(self, shard: str) -> list[Path]:
        """Return the files of a shard's scans that their boxes come from."""
        kinds = ("mesh", "segments", "aggregation", "meta", "proposals", "point_cloud")
        return self.there(*self.scan_files(shard, *kinds))

    def infos(self) -> list[str]:
        """Return the files of what EmbodiedScan says of the scenes, of all splits that are there.

        Nothing says that its split of a scene is ScanNet's.
        """
        named = {split: self.layout.candidates_file(split) for split in SPLITS}
        return [f"results/candidates/{split}.json" for split in named if self.there(named[split])]

    def _clouds(self, shard: str) -> tuple[list[Path], bool]:
        """Return the point clouds of a shard, and whether each of its scenes has one."""
        clouds = self.there(*self.scan_files(shard, "point_cloud"))
        return clouds, len(clouds) == len(self.scene_shards[shard])

    def coverage_files(self, shard: str) -> list[Path]:
        """Return what the choice of frames by coverage reads of a shard beside the frames."""
        if not self.coverage:
            return []
        clouds, complete = self._clouds(shard)
        return clouds if complete else clouds + self.there(*self.scan_files(shard, "mesh"))

    def selected_frames(self) -> list[Path]:
        """Return the published choice of frames, if it is used and there."""
        return self.there(self.layout.file("selected_frames")) if self.coverage else []

    def voxels(self, shard: str) -> list[str]:
        """Return the published voxels, where frames are chosen by them and not by point clouds."""
        needed = self.coverage and not self._clouds(shard)[1] and self.layout.file("voxels")
        return ["results/voxels.npz"] if needed else []

    def refuse(self, key: str) -> None:
        """Refuse a target whose content is of a file that a key of ``data`` does not give.

        Raises:
            ConfigError: always.
        """
        name = self.config["data"][key]
        fault = f"names {name}, which is not there" if name else "names no file"
        raise ConfigError(f"config: data.{key} {fault}; mend it, or ask for another target")

    def check_asked(self, targets: Collection[str], called: Callable[[str], str]) -> None:
        """Check that every stage that is asked for by its name has something to make.

        Args:
            targets: what Snakemake was asked for.
            called: returns the name that a rule has where this workflow is a module of another.

        Raises:
            ConfigError: one has nothing, which Snakemake would take for done.
        """
        empty = {
            "answers": (self.asked, "no split of data.scenes has questions"),
            "features": (self.teachers, "no run is trained with a teacher"),
            "models": (self.trained, "no run is trained here"),
        }
        # Where a single rule is used under another name, `called` has that one for every rule.
        names = {called(target): target for target in empty}
        for target, stage in names.items() if len(names) == len(empty) else ():
            made, reason = empty[stage]
            if target in targets and not made:
                raise ConfigError(
                    f"{target}: there is nothing to make, as {reason}; change the configuration, "
                    "or ask for another target"
                )

    def held_out(self) -> list[str]:
        """Return the scenes that no training may see: those of val and, where known, test."""
        test = self.scenes.get("test")
        if test is None:
            test = self.layout.scenes("test") if self.layout.has_scenes("test") else []
        return [*self.scenes["val"], *test]

    def downloaded_below(self, folder: str | None) -> list[Path]:
        """Return the files below a folder that the configuration downloads."""
        return sorted(p for p in self.layout.arriving if folder and Path(folder) in p.parents)

    def unhashed(self, paths: Iterable[Path]) -> list[tuple[str, int, int]]:
        """Return what tells apart the user's own inputs that have no checksum (`unhashed`)."""
        # What the run itself makes is not there at first, and has records of its own.
        demo = self.layout.root if self.demo else None
        own = {path for path in paths if demo not in path.parents}
        return unhashed(own - self.layout.arriving)

    # Teachers

    def teacher_section(self, teacher: str) -> dict[str, Any]:
        """Return what of the section `teacher` decides this teacher's features, beside files."""
        return {"name": teacher, **{k: self.config["teacher"][k] for k in ("seed", "grid")}}

    def posed_images(self, teacher: str) -> Path | None:
        """Return the folder that imported features were made from, by which they have frames."""
        return self.layout.root / self.layout.posed_images if takes_files(teacher) else None

    def teacher_candidates(self, wildcards: Any) -> list[str]:
        """Return the files of EmbodiedScan's lists, which tell imported features' frames."""
        return self.infos() if takes_files(wildcards.teacher) else []

    # Runs

    def run_config(self, run: str) -> Config:
        """Return the settings of a run, with the paths of its inputs; not how it is carried out."""
        sections = {name: part for name, part in self.resolved[run].items() if name != "execution"}
        # Where the data is changes no result. Of a teacher's weights the features say more.
        data = {k: v for k, v in sections["data"].items() if k != "root"}
        # By this the cards of models know whose rooms and licence it is.
        sections["data"] = {**data, "demo": self.generated}
        if (weights := sections.get("teacher", {}).get("weights")) is not None:
            sections["teacher"] = {**sections["teacher"], "weights": Path(weights).name}
        if run not in self.trained:
            return {"run": run, **sections}
        teacher = sections["teacher"]["name"]
        paths = {
            "mix": f"results/instructions/mixes/{sections['train']['mix']}.jsonl",
            "scenes": "results/scenes",
            "features": {
                scene: f"results/features/{teacher}/{shard}.zarr"
                for shard, scenes in self.feature_shards.items()
                for scene in scenes
                if teacher != NO_TEACHER
            },
            "out": f"results/train/{run}",
        }
        evaluation = self.evaluation_on_the_way(run)
        asked = {} if evaluation is None else {"evaluation": evaluation}
        return {"run": run, **sections, "paths": paths, **asked}

    def execution(self, wildcards: Any) -> str:
        """Return how a run is carried out, as JSON. As a resource it makes nothing stale."""
        return json.dumps(self.resolved[wildcards.run]["execution"])

    def model(self, run: str) -> str:
        """Return what a run's questions are put to: a model folder, or the run's settings.

        Of settings it is the model as training would start that answers.
        """
        checkpoint = self.resolved[run].get("checkpoint", f"results/train/{run}/model")
        return f"results/train/{run}/config.json" if checkpoint == INITIAL else checkpoint

    def trained_folder(self, wildcards: Any) -> list[str]:
        """Return the model folder of a run that is trained."""
        run = wildcards.run
        return [f"results/train/{run}/model"] if run in self.trained else []

    def model_files(self, wildcards: Any) -> list[Any]:
        """Return the files that stand for a run's model, by which predictions become stale."""
        run = wildcards.run
        if run in self.trained:
            return [f"results/train/{run}/model.json"]  # the hashes of the folder's files
        model = Path(self.model(run))
        if model.suffix == ".json":
            return [model]
        there = sorted(path for path in model.glob("*") if path.is_file())
        return [*dict.fromkeys([*there, *self.downloaded_below(str(model))])]

    def predict_settings(self, run: str, asked: str = "") -> dict[str, Any]:
        """Return how the model of a run is asked a benchmark, or a control of it."""
        control = asked_benchmark(asked)[1]
        asking = self.config["eval"]
        return {
            **({"control": control} if control else {}),
            **{key: asking[key] for key in ("prompt", "decoding", "max_new_tokens")},
            "boxes": self.config["boxes"]["eval"],
            "coordinate_dtype": self.config["geometry"]["coordinate_dtype"],
            "attention": self.resolved[run]["model"]["attention"],
            "limit": asking["limit"],
        }

    def telling_runs(self) -> list[str]:
        """Return runs whose predictions tell all questions with their candidate and true boxes."""
        # A model that is trained here answers every benchmark, so one run is enough, and the others
        # make nothing stale. The baseline is the one that changes least.
        trained = sorted(self.trained, key=lambda run: run != self.config["report"]["baseline"])
        return trained[:1] or list(self.resolved)

    def evaluation_on_the_way(self, run: str) -> dict[str, Any] | None:
        """Return what a run answers while it trains, and how; None: nothing."""
        if self.resolved[run]["train"].get("eval_every") is None:
            return None
        return {
            "records": [evaluation_records(benchmark) for benchmark in self.benchmarks],
            "settings": {**self.predict_settings(run), "limit": None},
            "left_out": "results/scenes/left_out/val.json",
        }

    def evaluation_files(self, wildcards: Any) -> list[str]:
        """Return the files that an evaluation on the way reads."""
        section = self.evaluation_on_the_way(wildcards.run)
        if section is None:
            return []
        manifests = [f"results/scenes/shards/{shard}.json" for shard in self.split_shards("val")]
        # The list of excluded scenes is there where enough val scenes can be used.
        return [*section["records"], *manifests, section["left_out"]]

    def check_batch(self, run: str, in_force: Callable[[str, int], Any]) -> None:
        """Check that the ranks which training gets (`batch_problem`) divide the batch of ``run``.

        Raises:
            ConfigError: they do not; has a line for each run of which that is so.
        """
        # Asked when a training is among the jobs: without one, nobody knows where it will be.
        # Where it fails, the other runs are asked too, so that all faults are said at once.
        found = {
            name: batch_problem(self.resolved[name], in_force, Path(f"results/train/{name}"))
            for name in self.trained
        }
        if found[run]:
            lines = [f"config: runs.{name}: {line}" for name, line in found.items() if line]
            raise ConfigError("\n".join(lines))

    # What jobs ask for, as functions of their wildcards

    def need(self, needs: Mapping[str, Mapping[str, int]], kind: str) -> Need:
        """Return the function that gives a resource of a run's jobs, by what its size needs."""
        return lambda wildcards: needs[self.resolved[wildcards.run]["model"]["size"]][kind]


def takes_files(teacher: str) -> bool:
    """Whether a teacher's features are files of the user's, one a scene."""
    weights = get_teacher(teacher).weights
    return weights is not None and weights.kind == "scenes"


def asked_benchmark(asked: str) -> tuple[str, str]:
    """Return benchmark and control of what a run is asked; "" is no control."""
    benchmark, _, control = asked.partition(CONTROL_MARK)
    return benchmark, control


def evaluation_records(asked: str, kind: str = "jsonl") -> str:
    """Return the file of a benchmark's evaluation records, or of what their conversion counted."""
    return f"results/instructions/{evaluation_name(asked_benchmark(asked)[0])}.{kind}"
