"""Weights & Biases, if the user turns it on: the curves of a run and its configuration.

The first rank alone uses it. Training never waits for it and never fails because of it: what goes
wrong is said once, and the run goes on without.
"""

import importlib.util
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from threedrs.config.schema import WandbSettings
from threedrs.errors import DataError, MachineError, one_line
from threedrs.io.files import read_json, write_json

SECONDS = 30  # that the start may take, and the end


def require_wandb(settings: WandbSettings | None) -> None:
    """Check that wandb is installed if the ``settings`` ask for it.

    Raises:
        MachineError: it is not installed.
    """
    if settings is None:
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # without origin: a mere folder of that name
        raise MachineError(
            "execution.wandb: the package wandb is not installed; `pip install -e '.[wandb]'`, or "
            "set execution.wandb to null"
        )


class Tracker:
    """A run's rows on their way to W&B; ``warn`` says what goes wrong, once."""

    def __init__(
        self,
        settings: WandbSettings,
        out: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        config_hash: str,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._run: Any = None

        def start() -> None:
            import wandb

            self._run = wandb.init(
                **settings.to_json(),
                id=_identity(out / "checkpoints" / "wandb.json", config_hash),
                name=name,
                resume="allow",
                config={name: part for name, part in config.items() if name != "paths"},
                dir=str(out),
                settings=wandb.Settings(
                    console="off", silent=True, init_timeout=SECONDS, login_timeout=SECONDS
                ),
            )
            # A resumed run comes again to steps that W&B has; it would refuse them one by one.
            self._first_step: int = self._run.step

        self._attempt(start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step."""
        if self._run is not None and step >= self._first_step:
            self._attempt(lambda: self._run.log(values, step=step))

    def close(self, *, failed: bool) -> None:
        """Send what is left, for half a minute at most; the rest lies in the run's folder."""
        if self._run is None:
            return
        run = self._run
        # In a thread, because `finish` waits for a server that does not answer for ever.
        end = threading.Thread(
            target=self._attempt, args=(lambda: run.finish(exit_code=int(failed)),), daemon=True
        )
        end.start()
        end.join(SECONDS)
        if end.is_alive():
            self._warn(
                "W&B does not take the last rows; they lie in the run's folder wandb/ "
                "(`wandb sync`)"
            )

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of a network, a server, a package: training goes on
            self._run = None
            self._warn(f"goes on without W&B: {type(error).__name__}: {one_line(error)}")


def _identity(path: Path, config_hash: str) -> str:
    """Return the W&B run's id: the one of this recipe's earlier start, or a new one."""
    try:
        known = read_json(path)
        if known["config_hash"] == config_hash:
            return str(known["id"])
    except (DataError, KeyError, TypeError):
        pass  # the first start
    # It lies beside the checkpoints, so that a resumed run continues the same one.
    identity = secrets.token_hex(8)
    write_json(path, {"id": identity, "config_hash": config_hash})
    return identity
