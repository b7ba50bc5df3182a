"""Tables and reports open without torch and without waiting for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "tables",
    "store",
    "comparison",
    "memory_sweep",
    "console",
    "figures",
    "page",
    "plane",
    "written",
    "index",
    "run_comparison",
    "run_comparison_page",
    "readme",
    "result",
    "exemplars",
    "exemplar_figures",
)


@pytest.mark.parametrize("heavy", ["torch", "lightning", "hydra"])
def test_report_does_not_import(heavy: str) -> None:
    imports = "; ".join(f"import mmcl.report.{name}" for name in MODULES)
    program = f"import sys; {imports}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_tables_are_read_within_a_second_of_cpu_time() -> None:
    program = (
        "import time; from mmcl.report.tables import find_tables, load_table; load_table('quick'); "
        "assert time.process_time() < 1, time.process_time()"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
