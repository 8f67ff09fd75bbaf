from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
def test_a_killed_writer_loses_nothing_that_was_acknowledged() -> None:
    """A few of the kills of benchmarks/kills.py, which checks after each of them, and fails at the first loss."""
    command = [sys.executable, str(BENCHMARK), "--kills", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["kills"], result["lost_or_half"]) == (6, 0)
    assert sum(result["killed_during"].values()) == 6
