"""Exceptions for what a user can put right.

Each message is one readable line that names the file, the thing in it and the remedy; the command
line and the workflow scripts print it without a traceback and exit with status 1.
"""


class ThreedrsError(ValueError):
    """Base of all errors whose cause lies in the input, the configuration or the machine."""


class ConfigError(ThreedrsError):
    """The configuration is wrong; the message lists every problem found."""


class DataError(ThreedrsError):
    """An input file is missing, malformed, or contradicts another input file."""


class StoreError(ThreedrsError):
    """A scene store or feature store is unreadable, damaged, or of another format version."""


class CheckpointError(ThreedrsError):
    """A model checkpoint or a training checkpoint cannot be used."""


class MachineError(ThreedrsError):
    """The machine lacks something that was asked for (a GPU, Java, disk space, a package)."""
