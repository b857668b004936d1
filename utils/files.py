"""Files appear whole or not at all, whatever kills the process or fills the disk."""

import contextlib
import hashlib
import os
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path):
    """Yields a path to write to; it becomes `path` when all is written, and is removed if anything goes wrong.

    with atomic_write("figures/plain.json") as partial:
        partial.write_text(...)
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def digest(content):
    """Twelve characters that stand for some bytes."""
    return hashlib.sha256(content).hexdigest()[:12]
