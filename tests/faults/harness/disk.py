"""A small disk that can be filled: a tmpfs of the harness's own where mounting is allowed, else a plain directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.servers import MissingError

SIZE = "1g"


class Disk:
    """A directory, with a file system of its own where that can be had. `close` unmounts it; what it held is gone then."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "siftbell-faults", str(place)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            self.why_not = "" if done.returncode == 0 else done.stderr.strip()
        except OSError as error:
            self.why_not = str(error)

    @property
    def free(self) -> int:
        """How many bytes there is room for."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Leave room for nothing. Raises `MissingError` where the disk is not the harness's own."""
        if self.why_not:
            raise MissingError(f"a disk of its own cannot be mounted here: {self.why_not}")
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            while free := self.free:
                try:
                    size = os.fstat(descriptor).st_size
                    os.posix_fallocate(descriptor, size, free)
                except OSError:  # somebody else took a piece of it meanwhile
                    continue
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, even while somebody still has a file open there."""
        if not self.why_not:
            subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)
            self.why_not = "it is closed"
