"""Every golden file under the root is checked by its ``kind``, through the functions that the runs use."""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

import numpy as np
import pytest

from tests import parity

ROOT = Path(os.environ.get("MMCL_GOLDEN_DIR", Path(__file__).parent / "golden"))
FILES = sorted(ROOT.glob("*/*.npz"))
for module in pkgutil.iter_modules(parity.__path__):
    importlib.import_module(f"tests.parity.{module.name}")


def test_there_are_golden_files() -> None:
    assert FILES, f"no <method>/*.npz under {ROOT}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(path: Path) -> None:
    golden = np.load(path, allow_pickle=False)
    kind = str(golden["kind"])
    known = {name: check for (method, name), check in parity.CHECKS.items() if method == path.parent.name}
    assert kind in known, f"{path}: no check knows kind {kind!r}; known: {', '.join(sorted(known))}"
    known[kind](golden)
