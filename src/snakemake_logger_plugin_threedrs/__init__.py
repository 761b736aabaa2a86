"""Snakemake's logger plugin `threedrs`, found by this package's name; profiles/default asks for it.

A run is shown by `threedrs.workflow.run_screen`. A dry run, ``--verbose``, ``--debug-dag`` and
``--printshellcmds`` show Snakemake's own lines, with the reasons of jobs, and after them what Slurm
did to jobs and the remedy.
"""

import sys
from collections.abc import Mapping, Sequence
from logging import LogRecord, StreamHandler
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """Hands Snakemake's events to a `RunScreen`, or to what prints Snakemake's own lines."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        # Not above: Snakemake imports every plugin before it knows which one is asked for.
        from snakemake.settings.enums import Quietness

        from threedrs.workflow.run_events import RunState
        from threedrs.workflow.run_screen import RunScreen
        from threedrs.workflow.start_errors import plain_error

        # Not in `emit`: its thread would import while the Snakefile's removes modules.
        self.plain_error = plain_error
        self.state = RunState()  # beside Snakemake's lines, which do not explain Slurm's
        asked = self.common_settings
        self.workflow: Any = None
        self.names: Mapping[str, Sequence[str]] = {}
        self.lines: StreamHandler[TextIO] | None = None
        self.screen: RunScreen | None = None
        if asked.dryrun or asked.verbose or asked.debug_dag or asked.printshellcmds:
            self.lines = _snakemake_lines(asked)
        else:
            quiet = set(asked.quiet or ())
            self.screen = RunScreen(
                silent=Quietness.ALL in quiet, brief=bool(quiet), colour=not asked.nocolor
            )

    def know(self, workflow: Any, names: Mapping[str, Sequence[str]]) -> None:
        """Take the workflow, once its configuration is read, and the values of its wildcards."""
        self.workflow, self.names = workflow, names
        # What a workflow that uses this one as a module puts before the names of rules.
        self.state.prefix = workflow.modifier.modify_rulename("")
        if self.screen is not None:
            self.screen.workflow = workflow
            self.screen.state.prefix = self.state.prefix

    def emit(self, record: LogRecord) -> None:
        """Show a record of Snakemake's, in the thread that Snakemake has for its plugins."""
        try:
            if getattr(record, "event", None) == "error" and not self.common_settings.verbose:
                rules = [] if self.workflow is None else [*self.workflow.rules]
                exception = getattr(record, "exception", None)
                record.msg = self.plain_error(str(record.msg), exception, rules, self.names)
            if self.screen is not None:
                self.screen.take(record)
            elif self.lines is not None:
                self.lines.handle(record)
                self.state.take(record)
        except Exception:  # a fault in what is shown is not to end a run
            self.handleError(record)

    def close(self) -> None:
        """Say how the run ended, as the last thing that is said."""
        if self.screen is not None:
            self.screen.close()
            self.screen = None
        elif self.lines is not None and self.state.causes:
            # Not above: it reads summaries, whose modules take a second to import.
            from threedrs.workflow.run_summary import failures

            found = [line for line in failures(self.state) if "Slurm: " in line]
            self.lines.stream.writelines(f"{line}\n" for line in found)
            self.lines = None
        super().close()


def _snakemake_lines(asked: Any) -> StreamHandler[TextIO]:
    """Return the handler that Snakemake has without a plugin."""
    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

    handler = ColorizingTextHandler(
        nocolor=asked.nocolor,
        stream=sys.stdout if asked.stdout else sys.stderr,
        formatter=DefaultFormatter(asked.quiet, asked.show_failed_logs),
    )
    shown = (asked.debug_dag, asked.verbose, asked.dryrun, asked.printshellcmds)
    handler.addFilter(DefaultFilter(asked.quiet, *shown))
    return handler
