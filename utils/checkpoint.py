"""A training run on disk, so that one that was killed goes on where it stopped. `train.fit` uses it.

A file is a line with the SHA-256 of the rest, and the rest is what torch.save wrote. The one before is kept as NAME.previous.
"""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import torch

from .files import whole


class Checkpoint:
    """The file of one training run. A run goes on from it only if everything that it depends on is the same."""

    def __init__(self, path, model, train_loader, val_loader, epochs, optimizer, scheduler, criterion):
        self.path = path
        self.parts = {"model": model, "optimizer": optimizer} | ({"scheduler": scheduler} if scheduler else {})
        self.loaders = [loader for loader in (train_loader, val_loader) if hasattr(loader, "epoch")]
        parameters, layers = sum(p.numel() for p in model.parameters()), hashlib.sha256(repr(model).encode()).hexdigest()[:8]
        self.settings = {"model": f"{type(model).__name__} with {parameters:,} parameters ({layers})", "epochs": epochs}
        for what, loader in (("training", train_loader), ("validation", val_loader)):
            of_loader = loader.settings() if hasattr(loader, "settings") else {"batches": len(loader)}
            self.settings |= {f"{what} {key}": value for key, value in of_loader.items()}
        self.settings |= {"criterion": repr(criterion), "optimizer": type(optimizer).__name__, "schedule": type(scheduler).__name__}
        for number, group in enumerate(optimizer.param_groups):
            self.settings |= _plain(f"optimizer group {number}" if number else "optimizer", group)
        self.settings |= _plain("schedule", scheduler.state_dict()) if scheduler else {}

    def save(self, history):
        """Write everything; if the disk is full, say so and leave the last whole file as it is."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"history": vars(history), "epochs": [loader.epoch for loader in self.loaders], "random": _random_state()}
        try:
            save(self.path, self.settings, state)
        except OSError as error:
            print(f"WARNING: no checkpoint written ({error.strerror or error}); the training goes on")

    def resume(self, history):
        """Take up what the file holds; returns whether there was one."""
        state = load(self.path, self.settings, next(self.parts["model"].parameters()).device)
        if state is None:
            return False
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for loader, done in zip(self.loaders, state["epochs"], strict=True):
            loader.epoch = done
        vars(history).update(state["history"])
        _restore_random_state(state["random"])
        return True


def _plain(name, mapping):
    """The numbers and words of a state, {their name in a sentence: value}; without tensors, and what schedulers keep for themselves."""
    values = {key: value for key, value in mapping.items() if key != "params" and not key.startswith("_")}
    return {f"{name} {key}": value for key, value in values.items() if isinstance(value, (int, float, str, bool))}


def save(path, settings, state):
    """Write settings (a flat dict) and state to path; whatever happens meanwhile, a whole file stays. Raises OSError if it can't."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"settings": settings, "state": state}, buffer)
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        with open(partial, "wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, _previous(path))


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


def _random_state():
    """The state of every generator that training may draw from."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": [name, keys.tolist(), *rest]}


def _restore_random_state(state):
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
