"""``threedrs instructions``: annotation files to records, records to other tools' form."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from threedrs.cli.names import BenchmarkName, check_out
from threedrs.cli.shared import AsJson, progress, report, say
from threedrs.errors import counted

if TYPE_CHECKING:
    from threedrs.tasks.record import Record

app = typer.Typer(help="Instruction data: convert annotations, export records.")


@app.command()
def convert(
    benchmark: BenchmarkName,
    split: Annotated[str, typer.Argument(help="train, val or test.")],
    data: Annotated[Path, typer.Option(help="Data root: the folder that holds benchmark/.")],
    out: Annotated[Path, typer.Option(help="File of records to write (.jsonl).")],
    on_reject: Annotated[
        Literal["report", "fail"], typer.Option(help="List rejected rows, or stop at the first.")
    ] = "report",
    max_reject_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Stop when more than this fraction of the rows is rejected."
        ),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Convert a benchmark's annotation files to records (JSON lines)."""
    from threedrs.instructions.convert import convert as convert_annotations
    from threedrs.scannet.layout import DataLayout
    from threedrs.tasks.registry import find_task

    folder, files = DataLayout(root=data).benchmark_folder, find_task(benchmark, split).files
    check_out(out, *(folder / file.path.format(split=split) for file in files))
    with progress() as show:
        show(f"converting {benchmark} {split}")
        summary = convert_annotations(
            benchmark,
            split,
            DataLayout(root=data),
            None,
            out,
            on_reject=on_reject,
            max_reject_fraction=max_reject_fraction,
        )
    reasons = "".join(f"; {reason}: {count}" for reason, count in summary.reasons.items())
    report(
        summary.to_json(),
        as_json,
        f"{benchmark} {split}: {counted(summary.records, 'record')} from "
        f"{counted(summary.rows, 'row')}, "
        f"{summary.rejected} rejected{reasons}",
    )


@app.command()
def export(
    records: Annotated[list[Path], typer.Argument(help="Files of records (.jsonl).")],
    out: Annotated[Path, typer.Option(help="JSON array to write.")],
    style: Annotated[Literal["llava"], typer.Option(help="The form of the records.")] = "llava",
) -> None:
    """Write records as LLaVA-style training code reads them."""
    check_out(out, *records)

    from threedrs.instructions.llava_format import write_llava

    count = write_llava(out, (record for path in records for record in _records(path)))
    say(f"{out}: {count} entries")


def _records(path: Path) -> "Iterator[Record]":
    from threedrs.errors import DataError
    from threedrs.instructions.llava_format import load_records

    empty = True
    for record in load_records(path):
        empty = False
        yield record
    if empty:
        raise DataError(f"{path}: holds no records; convert the annotations again")
