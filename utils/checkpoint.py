"""A training run on disk, so that one that was killed goes on where it stopped. `train.fit` uses it.

A file is a line with the SHA-256 of the rest, and the rest is what torch.save wrote. The one before is kept as NAME.previous.
"""

import functools
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .files import atomic_write


class Checkpoint:
    """The file of one training run. A run goes on from it only if everything that it depends on is the same."""

    def __init__(self, path, model, train_loader, val_loader, epochs, optimizer, scheduler, criterion):
        self.path = path
        self.parts = {"model": model, "optimizer": optimizer} | ({"scheduler": scheduler} if scheduler else {})
        self.loaders = [loader for loader in (train_loader, val_loader) if hasattr(loader, "epoch")]
        parameters = list(model.parameters())
        layers = hashlib.sha256(repr([repr(model), describe(model)]).encode()).hexdigest()[:8]
        self.settings = flatten({
            "model": f"{type(model).__name__} with {sum(p.numel() for p in parameters):,} parameters ({layers})",
            "initial weights": digest(*model.state_dict().values()),
            "frozen parameters": sum(not p.requires_grad for p in parameters),
            "epochs": epochs,
            "training": _loader_settings(train_loader),
            "validation": _loader_settings(val_loader),
            "criterion": describe(criterion),
            "optimizer": {"type": type(optimizer).__name__} | describe(_optimizer_settings(optimizer)),
            "schedule": {"type": type(scheduler).__name__} | (describe(scheduler.state_dict()) if scheduler else {}),
            "schedule functions": describe(getattr(scheduler, "lr_lambdas", None)),  # which its state leaves out
        })  # fmt: skip

    def save(self, history):
        """Write everything; if the disk is full, say so and leave the last whole file as it is."""
        state = {name: _without_numpy(part.state_dict()) for name, part in self.parts.items()}
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
    """A value as plain numbers, words, lists and dicts: equal for what computes the same, the same in every process."""
    if isinstance(value, np.generic):  # before float: a numpy.float64 is one
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        tensor = torch.as_tensor(value)
        return tensor.item() if tensor.ndim == 0 else digest(tensor)
    if isinstance(value, dict):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, functools.partial):
        return {"function": describe(value.func), "arguments": describe(value.args), "options": describe(value.keywords)}
    if hasattr(value, "__code__"):  # a function: by what it does, since its repr holds an address
        around = [cell.cell_contents for cell in value.__closure__ or ()]
        known = [part for part in around if isinstance(part, (bool, int, float, str, list, tuple, np.generic))]
        does = repr([_code(value.__code__), describe(known), describe(value.__defaults__), describe(value.__kwdefaults__)])
        return f"{value.__qualname__} {hashlib.sha256(does.encode()).hexdigest()[:8]}"
    if isinstance(value, nn.Module):
        plain = {name: part for name, part in vars(value).items() if not name.startswith("_") and name != "training"}
        inside = {name: describe(module) for name, module in value.named_children()}
        return {"type": type(value).__name__} | describe(plain) | {"weights": digest(*value.buffers(recurse=False))} | inside
    if hasattr(value, "__qualname__"):  # a class, or a function of C
        return value.__qualname__
    return {"type": type(value).__name__} | {
        key: part for key, part in getattr(value, "__dict__", {}).items() if isinstance(part, (bool, int, float, str))
    }


def _code(code):
    """The instructions of a function and of those in it, with names and numbers."""
    constants = [_code(part) if hasattr(part, "co_code") else part for part in code.co_consts]
    return [code.co_code, code.co_names, [repr(sorted(part)) if isinstance(part, frozenset) else part for part in constants]]


def flatten(nested, name=""):
    """{"a": {"b": 1}, "c": [2]} as {"a b": 1, "c 0": 2}."""
    if isinstance(nested, list):
        nested = dict(enumerate(nested)) or {"": "empty"}
    if not isinstance(nested, dict):
        return {name: nested}
    flat = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{name} {str(key).strip('_')}".strip())
    return flat


def _without_numpy(state):
    """A state with Python's numbers for numpy's, which are not read back."""
    if isinstance(state, dict):
        return {key: _without_numpy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_without_numpy(value) for value in state)
    return state.item() if isinstance(state, np.generic) else state


def _loader_settings(loader):
    if hasattr(loader, "settings"):
        return loader.settings()
    return {"batches": len(loader)} if hasattr(loader, "__len__") else {}


def _optimizer_settings(optimizer):
    """A dict if there is one group of parameters, else a list of dicts; and what the optimizer remembers of earlier steps."""
    state = optimizer.state_dict()
    groups = [
        {key: value for key, value in group.items() if key != "params"} | {"parameters": len(group["params"])}
        for group in state["param_groups"]
    ]
    return (groups[0] if len(groups) == 1 else {"group": groups}) | {"memory": state["state"]}


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
