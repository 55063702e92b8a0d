"""What a process of ours takes from its machine, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """At one moment; counters since the process started."""

    rss_mb: float  # resident, what `ps` shows; 1 MB = 10^6 bytes
    peak_mb: float  # the most that was ever resident
    pss_mb: float  # the same with shared pages divided among those that share
    cpu_seconds: float
    written_bytes: int  # that reached, or will reach, a disk

    @classmethod
    def by(cls, pid: int) -> "Taken":
        proc = Path(f"/proc/{pid}")
        rss = _field(proc / "status", "VmRSS:") * 1024
        peak = _field(proc / "status", "VmHWM:") * 1024
        pss = _field(proc / "smaps_rollup", "Pss:") * 1024
        times = (proc / "stat").read_text().rpartition(") ")[2].split()
        return cls(
            rss_mb=rss / 1e6,
            peak_mb=peak / 1e6,
            pss_mb=pss / 1e6,
            cpu_seconds=(int(times[11]) + int(times[12])) / _TICKS,
            written_bytes=_field(proc / "io", "write_bytes:")
            - _field(proc / "io", "cancelled_write_bytes:"),
        )


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no {name}")
