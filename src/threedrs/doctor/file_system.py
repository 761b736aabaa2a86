"""Does the file system of results/ keep what the workflow relies on?

Outputs appear whole because a synced file is renamed over the old one, and Snakemake tells stale
files by their times. A file of a few bytes is written, synced, renamed and removed again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from threedrs.doctor.finding import Finding, Setting
from threedrs.io.files import sync

MOST_SKEW = 2.0  # seconds; Snakemake's own tolerance of file times is a few
# Names of file systems in /proc/mounts on which a rename is a copy, or others see it late.
NOT_ATOMIC = ("cifs", "smb3", "vfat", "exfat", "ntfs", "ntfs3", "9p", "fuse.s3fs", "fuse.rclone")
NOT_ATOMIC_PREFIXES = ("fuse.sshfs", "fuse.gcsfuse", "fuse.goofys", "fuse.mount-s3")


def check_file_system(setting: Setting) -> Iterator[Finding]:
    """Write, sync and rename a file in results/, and compare its time with the clock."""
    folder = setting.written_folder
    old, new = (folder / f".doctor-{os.getpid()}-{name}.tmp" for name in ("old", "new"))
    step = "written"
    try:
        old.write_bytes(b"old")
        before = time.time()
        new.write_bytes(b"new")
        after, changed = time.time(), new.stat().st_mtime
        step = "synced to disk"
        sync(new)
        sync(folder)
        step = "renamed over another"
        new.replace(old)
        if old.read_bytes() != b"new" or new.exists():
            raise OSError(0, "the old file is still there")
    except OSError as error:
        yield Finding(
            check="file system",
            status="error",
            message=f"{folder}: a file cannot be {step} ({error.strerror})",
            remedy="make results/ a link to a folder of yours on a local or cluster file system",
        )
        return
    finally:
        for file in (old, new):
            with suppress(OSError):  # on a read-only file system even if it is not there
                file.unlink()
    yield from _check_kind(folder)
    skew = changed - min(max(changed, before), after)
    if abs(skew) > MOST_SKEW:
        yield Finding(
            check="clock",
            status="warning",
            message=f"files in {folder} get times {abs(skew):.0f} s "
            f"{'after' if skew > 0 else 'before'} this machine's clock: finished stages may run "
            "again, or stale ones not",
            remedy="set the clocks of this machine and of the file server (NTP)",
        )
    else:
        yield Finding(check="clock", status="ok", message="agrees with the file system of results/")


def _check_kind(folder: Path) -> Iterator[Finding]:
    kind = mount_kind(folder)
    if kind in NOT_ATOMIC or kind.startswith(NOT_ATOMIC_PREFIXES):
        yield Finding(
            check="file system",
            status="warning",
            message=f"{folder} is on {kind}, where a rename may not be atomic: a killed job can "
            "leave half a file",
            remedy="make results/ a link to a folder on a local or cluster file system",
        )
        return
    where = f" on {kind}" if kind else ""
    yield Finding(check="file system", status="ok", message=f"sync and rename work{where}")


def mount_kind(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of the file system of ``folder``; empty where it is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in lines:
        _, point, found, *_ = line.split()
        point = point.replace("\\040", " ")
        # Of mounts in the same place the last one shows.
        if place.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind
