"""A training run on disk, so that one that was killed goes on where it stopped. `train.fit` uses it.

A file is a line with the SHA-256 of the rest, and the rest is what torch.save wrote. The one before is kept as NAME.previous.
"""

import copy
import functools
import hashlib
import io
import os
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import distributed
from .files import atomic_write


class Checkpoint:
    """The state of one training run: in a file, or without a path in memory, where it is found again if the run was interrupted.

    A run goes on from it only if everything that it depends on is the same.
    """

    interrupted = None  # (settings, state) of the last run without a path that was interrupted

    def __init__(self, path, model, train_loader, val_loader, epochs, optimizer, scheduler, criterion):
        self.path, self.last = path, None
        model = distributed.unwrapped(model)  # so that it does not matter how many processes go on
        self.parts = {"model": model, "optimizer": optimizer} | ({"scheduler": scheduler} if scheduler else {})
        self.loaders = [loader for loader in (train_loader, val_loader) if hasattr(loader, "epoch")]
        parameters = list(model.parameters())
        self.settings = {
            "model": f"{type(model).__name__} with {sum(p.numel() for p in parameters):,} parameters ({_short(describe(model))})",
            "initial weights": digest(*model.state_dict().values()),
            "frozen parameters": sum(not p.requires_grad for p in parameters),
            "epochs": describe(epochs),
            "criterion": describe(criterion),
        }
        for what, loader in (("training", train_loader), ("validation", val_loader)):
            of_loader = {"batch size": getattr(loader, "batch_size", None), "batches": length_hint(loader)}
            of_loader = loader.settings() if hasattr(loader, "settings") else of_loader
            self.settings |= {f"{what} {key}": describe(value) for key, value in of_loader.items()}
        for number, group in enumerate(optimizer.param_groups):
            name = f"optimizer group {number}" if number else "optimizer"
            self.settings |= {f"{name} {key}": describe(value) for key, value in group.items() if key != "params"}
        state = scheduler.state_dict() | {"functions": getattr(scheduler, "lr_lambdas", [])} if scheduler else {}
        self.settings |= {f"schedule {key.strip('_')}": describe(value) for key, value in state.items()}
        self.settings |= {"optimizer": type(optimizer).__name__, "schedule": type(scheduler).__name__}

    def save(self, history):
        """Keep everything; if the disk is full, say so and leave the last whole file as it is.

        Of several processes, the first one writes: all have the same, but for the generators of random numbers.
        """
        state = {name: _without_numpy(part.state_dict()) for name, part in self.parts.items()}
        state |= {"history": vars(history), "epochs": [loader.epoch for loader in self.loaders], "random": _random_state()}
        if not self.path:
            self.last = copy.deepcopy(state)
            return
        state["random of all"] = distributed.from_all(state["random"])
        if distributed.rank() > 0:
            return
        try:
            save(self.path, self.settings, state)
        except OSError as error:
            print(f"WARNING: no checkpoint written ({error.strerror or error}); the training goes on")

    def interrupt(self):
        """Leave what was kept last for a run that is started again in this process."""
        Checkpoint.interrupted = None if self.path else (self.settings, self.last)

    def resume(self, history):
        """Take up what was kept; returns whether there was anything."""
        if self.path:
            device = next(self.parts["model"].parameters()).device
            state = distributed.from_first(load(self.path, self.settings, device) if distributed.rank() == 0 else None)
        else:
            settings, state = Checkpoint.interrupted or (None, None)
            Checkpoint.interrupted, state = None, state if settings == self.settings else None
        if state is None:
            return False
        self.last = state
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for loader, done in zip(self.loaders, state["epochs"], strict=True):
            loader.epoch = done
        vars(history).update(state["history"])
        of_all = dict(enumerate(state.get("random of all", [])))  # a process that was not there keeps its own
        _restore_random_state(of_all.get(distributed.rank(), state["random"] if distributed.rank() == 0 else _random_state()))
        return True


# ---- the file -------------------------------------------------------------------------------------------------------


def save(path, settings, state):
    """Write settings (a flat dict) and state to path; whatever happens meanwhile, a whole file stays. Raises OSError if it can't."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"settings": settings, "state": state}, buffer)
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        with open(partial, "wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, _previous(path))


def load(path, settings, device="cpu"):
    """The state of a run with these settings, its tensors on `device`; None if there is none.

    A file that is damaged or no checkpoint is renamed to NAME.damaged, with a line that says so, and the one before it is used.
    Raises ValueError, naming what differs, if the file is of a run with other settings.
    """
    for candidate in (Path(path), _previous(Path(path))):
        if not candidate.exists():
            continue
        try:
            found = _read(candidate, device)
        except (OSError, ValueError) as error:
            damaged = candidate.with_name(candidate.name + ".damaged")
            os.replace(candidate, damaged)
            print(f"WARNING: the checkpoint {candidate.name} is damaged ({error}): set aside as {damaged.name}")
            continue
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


def _read(path, device):
    """What `save` wrote; ValueError for anything else. Nothing is unpickled before its checksum fits, and then only tensors and numbers."""
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its checksum does not fit")
    try:
        found = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # torch raises EOFError, RuntimeError, UnpicklingError, …, some of many lines
        raise ValueError(f"torch cannot load it: {type(error).__name__}") from None
    if not isinstance(found, dict) or set(found) != {"settings", "state"} or not isinstance(found["settings"], dict):
        raise ValueError("it holds something else")
    return found


def _previous(path):
    return path.with_name(path.name + ".previous")


# ---- what a run depends on ------------------------------------------------------------------------------------------


def describe(value):
    """A number or a text that is equal for what computes the same, in every process; repr() often holds an address."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return repr({key: describe(part) for key, part in value.items()})
    if isinstance(value, (list, tuple)):
        return repr([describe(part) for part in value])
    if isinstance(value, torch.Tensor):
        return digest(value)
    if isinstance(value, functools.partial):
        return describe([value.func, value.args, value.keywords])
    if isinstance(value, nn.Module):  # its repr does not have all: none of label smoothing
        plain = {f"{name} {key}".strip(): part for name, module in value.named_modules() for key, part in vars(module).items()}
        return f"{value!r} {[(key, part) for key, part in plain.items() if _is_setting(key, part)]} {digest(*value.buffers())}"
    if hasattr(value, "__code__"):
        around = [cell.cell_contents for cell in value.__closure__ or ()]
        does = [_instructions(value.__code__), describe([around, value.__defaults__, value.__kwdefaults__])]
        return f"{value.__qualname__} ({_short(does)})"
    return getattr(value, "__qualname__", type(value).__name__)


def _is_setting(name, value):
    return isinstance(value, (int, float, str)) and not name.rpartition(" ")[2].startswith("_") and not name.endswith("training")


def _instructions(code):
    """What a function does, with those in it."""
    constants = [_instructions(part) if hasattr(part, "co_code") else part for part in code.co_consts if not isinstance(part, frozenset)]
    return [code.co_code, code.co_names, constants]


def _short(what):
    return hashlib.sha256(repr(what).encode()).hexdigest()[:8]


def _without_numpy(state):
    """A state with Python's numbers for numpy's, which are not read back."""
    if isinstance(state, dict):
        return {key: _without_numpy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_without_numpy(value) for value in state)
    return state.item() if isinstance(state, np.generic) else state


def _random_state():
    """The state of every generator that training may draw from."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": [name, keys.tolist(), *rest]}


def _restore_random_state(state):
    torch.set_rng_state(state["torch"].cpu())
    for number, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):  # there may be fewer GPUs now
        torch.cuda.set_rng_state(generator.cpu(), number)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))


def digest(*tensors):
    """A short name for the content of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:16]
