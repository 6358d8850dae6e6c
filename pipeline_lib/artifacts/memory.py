"""How much memory the process needed at its worst."""

import resource
import sys
from pathlib import Path


class PeakMemory:
    """Peak resident memory in MiB, of stretches of a run and of all of it; on other systems than Linux of all of it."""

    def __init__(self) -> None:
        self._before = 0  # peak of the stretches that are over

    def start(self) -> None:
        """Begin a stretch."""
        self._before = max(self._before, self.stretch())
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident: proc(5)

    def stretch(self) -> int:
        """Peak since the stretch began."""
        if sys.platform == "linux":
            status = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)

    def whole(self) -> int:
        """Peak of the process's life."""
        return max(self._before, self.stretch())


peak_memory = PeakMemory()  # of this process
