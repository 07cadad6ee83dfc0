"""The whole tour as a person runs it: seconds and peak memory; and how fast `--help` answers.

python benchmarks/tour.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time


def main() -> None:
    helps = [_seconds("--help") for _ in range(5)]
    print(f"phosphene --help: {statistics.median(helps):.2f} s (median of 5)")
    with tempfile.TemporaryDirectory() as folder:
        seconds = _seconds("tour", "--out", f"{folder}/tour", "--quiet")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"phosphene tour: {seconds:.0f} s, peak memory {peak:.2f} GB")
    assert statistics.median(helps) < 0.5 and seconds <= 180 and peak <= 2.5


def _seconds(*words: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "phosphene", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
