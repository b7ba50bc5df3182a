"""What a launcher starts in place of a run: ends as its overrides say, and writes down what it was given."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SLURM_PROCID", "LOCAL_RANK")


def listens_to_interrupts() -> None:
    """Let a child listen to SIGINT, also where these tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """``name=a folder=F codes=75,0 seconds=1 signal=9``: each start takes the next code, the last one for ever."""
    keys = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:] if "=" in word)
    folder = Path(keys["folder"]) / keys["name"]
    folder.mkdir(parents=True, exist_ok=True)
    starts = len(list(folder.glob("start*")))
    began = {"argv": sys.argv[1:], "at": time.time(), "pid": os.getpid(), **{v: os.environ.get(v) for v in VARIABLES}}
    signal.signal(signal.SIGTERM, lambda *_: _leave(folder, "asked"))
    (folder / f"start{starts}").write_text(json.dumps(began))
    time.sleep(float(keys.get("seconds", 0)))
    if "signal" in keys:
        os.kill(os.getpid(), int(keys["signal"]))
    codes = [int(code) for code in keys.get("codes", "0").split(",")]
    code = codes[min(starts, len(codes) - 1)]
    if code == 0:
        (folder / "result.json").write_text("{}")
        sys.stdout.write(f"{folder / 'result.json'}\n")
    else:
        sys.stdout.write(f"mmcl: what went wrong in {keys['name']}\nand a line behind it\n")
    sys.exit(code)


def _leave(folder: Path, word: str) -> None:
    (folder / word).touch()
    sys.exit(75)


if __name__ == "__main__":
    main()
