"""What a learner has reached, in one file that outlives the kernel: progress.json in the project's folder, or $RESNET_PROGRESS."""

import json
import os
from pathlib import Path

from filelock import FileLock

from ..files import whole

ROOT = Path(__file__).resolve().parents[2]


def _path():
    return Path(os.environ.get("RESNET_PROGRESS") or ROOT / "progress.json")


def read():
    """Everything that is known, {section: {key: entry}}; empty if there is no file yet, or none that can be read."""
    try:
        return json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}


def update(section, key, entry):
    """Put one entry, plain values, in its place."""
    with FileLock(f"{_path()}.lock"):
        everything = read()
        everything.setdefault(section, {})[key] = entry
        with whole(_path()) as partial:
            partial.write_text(json.dumps(everything, indent=1) + "\n")
