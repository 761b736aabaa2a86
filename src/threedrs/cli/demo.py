"""``threedrs demo``: a generated data set, so that the whole workflow runs without ScanNet."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or an older demo.")],
    scenes: Annotated[int, typer.Option(help="Rooms to generate; three of seven are val.")] = 14,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
) -> None:
    """Write generated rooms in ScanNet's on-disk formats, with all five benchmarks' annotations."""
    from threedrs.demo.write import demo_scenes, write_demo

    write_demo(out, scenes, seed)
    splits = demo_scenes(scenes)
    print(f"{out}: {len(splits['train'])} train and {len(splits['val'])} val scenes, seed {seed}")
