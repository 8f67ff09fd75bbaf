"""A byte of a file of a gallery or a model is changed: a right answer or a named error, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "flips.py"


@pytest.mark.slow
def test_a_flipped_byte_is_an_error_or_does_no_harm() -> None:
    """One byte of each file, in a process that may die; benchmarks/flips.py without --sample takes them all."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--sample", "1", "--seed", "0", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["findings"] == {}
    assert result["cases"] == result["files"] > 30
    assert result["answered"] > 0
    assert result["refused"] > 0
