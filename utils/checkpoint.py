"""A training run on disk, so that one that was killed goes on where it stopped. `train.fit` uses it.

A file is a line with the SHA-256 of the rest, and the rest is what torch.save wrote. The one before is kept as NAME.previous.
"""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import torch


def save(path, settings, state):
    """Write settings (a flat dict) and state to path; whatever happens meanwhile, a whole file stays. Raises OSError if it can't."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"settings": settings, "state": state}, buffer)
    content = buffer.getbuffer()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, _previous(path))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path, settings, device="cpu"):
    """The state of a run with these settings, its tensors on `device`; None if there is none.

    A damaged file is renamed to NAME.damaged, with a line that says so, and the one before it is used.
    Raises ValueError, naming what differs, if the file is of a run with other settings.
    """
    for candidate in (Path(path), _previous(Path(path))):
        if not candidate.exists():
            continue
        try:
            digest, _, content = candidate.read_bytes().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                raise ValueError("its checksum does not fit")
        except (OSError, ValueError) as error:
            damaged = candidate.with_name(candidate.name + ".damaged")
            os.replace(candidate, damaged)
            print(f"WARNING: the checkpoint {candidate.name} is damaged ({error}): set aside as {damaged.name}")
            continue
        found = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        theirs = found["settings"]
        differing = [key for key in {**theirs, **settings} if theirs.get(key) != settings.get(key)]
        if differing:
            key = differing[0]
            raise ValueError(
                f"the checkpoint {candidate.name} is of another run: {key} is {theirs.get(key)!r} there and {settings.get(key)!r} here. "
                "Delete it, or give this run another name"
            )
        return found["state"]
    return None


def _previous(path):
    return path.with_name(path.name + ".previous")


def random_state():
    """The state of every generator that training may draw from."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": [name, keys.tolist(), *rest]}


def restore_random_state(state):
    torch.set_rng_state(state["torch"].cpu())
    for number, generator in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(generator.cpu(), number)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))


def digest(*tensors):
    """A short name for the content of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy())
    return total.hexdigest()[:16]
