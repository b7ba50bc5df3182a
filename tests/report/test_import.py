"""Tables, results and reports open without torch and without waiting for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

EVERY_MODULE = """
import importlib, pkgutil, sys
import mmcl.report, mmcl.results
for room in (mmcl.report, mmcl.results):
    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"{room.__name__}.{module.name}")
sys.exit(__HEAVY__ in sys.modules or "mmcl.report.page" not in sys.modules)
"""


@pytest.mark.parametrize("heavy", ["torch", "lightning", "hydra"])
def test_results_and_reports_do_not_import(heavy: str) -> None:
    program = EVERY_MODULE.replace("__HEAVY__", repr(heavy))
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_tables_are_read_within_a_second_of_cpu_time() -> None:
    program = (
        "import time; from mmcl.results.tables import find_tables, load_table; load_table('quick'); "
        "assert time.process_time() < 1, time.process_time()"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
