"""What a learner has solved, kept in progress.json in the project's root: for all notebooks and kernels, and ignored by git.

    {"exercises": {name: {"notebook": "02", "solved": "2026-01-31T12:00:00" or null, "attempts": 3}}, "cases": {…}}

Import its functions from here: `from utils.checks.progress import read, update` (checks.progress is a function of the same name).
RESNET_PROGRESS names another file, or is "off": then nothing is written, and what is done is forgotten with the kernel.
"""

import json
import os
from pathlib import Path

from filelock import FileLock

from ..files import atomic_write

SECTIONS = ("exercises", "cases")
_memory = {}  # takes the file's place where there is none to be written
_told = set()


def place():
    """The file, or None where nothing is to be written."""
    name = os.environ.get("RESNET_PROGRESS") or Path(__file__).parents[2] / "progress.json"
    return None if name == "off" else Path(name)


def read():
    """{"exercises": {name: entry}, "cases": {name: entry}}. A damaged file is set aside and said so; nothing is raised."""
    path = place()
    if path is None:
        return _sound(_memory)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if _foreign(found):
            raise ValueError
    except FileNotFoundError:
        return _sound(_memory)
    except OSError as error:
        _tell(f"The progress in {path.name} can't be read ({error.strerror}).")
        return _sound(_memory)
    except ValueError:  # neither JSON, nor UTF-8, nor ours
        _set_aside(path)
        return _sound({})
    return _sound(found)


def update(section, key, entry):
    """Replace one entry and keep all others, whatever other kernels write at the same time.

    entry: the new one; a function that makes it of the old one (None if there is none); or None, to forget it.
    """
    path = place()
    try:
        if path is None:
            return _change(_memory, section, key, entry)
        with FileLock(f"{path}.lock", timeout=10, poll_interval=0.01):
            found = read()
            _change(found, section, key, entry)
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, NotImplementedError) as error:  # read-only, full, or a file system without locks
        _tell(f"Your progress can't be kept in {path.name} ({getattr(error, 'strerror', None) or error}): it lasts as long as this kernel.")
        _change(_memory, section, key, entry)


def _change(found, section, key, entry):
    entries = found.setdefault(section, {})
    if callable(entry):
        entry = entry(entries.get(key))
    if entry is None:
        entries.pop(key, None)
    else:
        entries[key] = entry


def _sound(found):
    return {**found, **{section: dict(found.get(section, {})) for section in SECTIONS}}


def _foreign(found):
    sections = [found.get(section, {}) for section in SECTIONS] if isinstance(found, dict) else [None]
    return not all(isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values()) for entries in sections)


def _set_aside(path):
    number, aside = 1, path.with_name(path.name + ".damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    try:
        os.replace(path, aside)
        print(f"{path.name} can't be read as progress: it is kept as {aside.name}, and a new one begins.")
    except OSError:
        _tell(f"{path.name} can't be read as progress.")


def _tell(line):
    if line not in _told:
        _told.add(line)
        print(line)
