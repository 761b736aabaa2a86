"""Being asked to stop: the signals after which a run saves its state and ends."""

import signal
from dataclasses import dataclass

# SIGUSR1 is Slurm's warning before the time limit (slurm/config.yaml), SIGINT that of Ctrl-C.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass
class StopRequest:
    """Remembers a stop signal for the loop, which saves after the step that it is in."""

    name: str | None = None

    def install(self) -> "StopRequest":
        """Catch the signals from here on."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: object) -> None:
        self.name = signal.Signals(number).name
