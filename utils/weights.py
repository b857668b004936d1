"""The numbers of trained networks, in weights/: NAME.npz holds them, NAME.json says how they were made.

`models.load` makes a network of them. Kernels and matrices are kept as float16, which halves the file. What has one number for each channel
stays in float32: it takes little room, and a running variance may lie outside the range of float16. Nothing is ever unpickled.
"""

import copy
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch

from .files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "weights"


def rounded(model):
    """A copy of the model with the numbers that `save` stores: it is this one's accuracy that counts.

    Raises ValueError for what float16 can't hold.
    """
    model = copy.deepcopy(model)
    for name, tensor in model.state_dict().items():
        tensor.copy_(_as_stored(tensor))
        if not tensor.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite, or too large for float16")
    return model


def _as_stored(tensor):
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def save(model, name, folder=FOLDER, **record):
    """Write NAME.npz and NAME.json, each whole or not at all; returns the two paths. Raises ValueError as `rounded` does, and OSError.

    record: how the network was made, for NAME.json; shapes and the SHA-256 of the other file are added.
    """
    arrays = {key: _as_stored(tensor.detach().cpu().contiguous()).numpy() for key, tensor in rounded(model).state_dict().items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # the same numbers give the same file
    content = packed.getvalue()
    record |= {"parameters": sum(p.numel() for p in model.parameters()), "bytes": len(content)}
    record |= {"sha256": hashlib.sha256(content).hexdigest()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{name}.npz") as partial:
        partial.write_bytes(content)
    with atomic_write(folder / f"{name}.json") as partial:
        partial.write_text(json.dumps({"name": name} | record, indent=1) + "\n", encoding="utf-8")
    return folder / f"{name}.npz", folder / f"{name}.json"


def record(name, folder=FOLDER):
    """How a network was made and what it reaches, as a dict. Raises FileNotFoundError or ValueError, in one line."""
    path = Path(folder) / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["sha256"], str):
            raise ValueError
    except FileNotFoundError:
        raise FileNotFoundError(f"there are no weights {name}: weights/{path.name} is missing. {REMEDY}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"weights/{path.name} is damaged or no record of weights. {REMEDY}") from None
    return found


REMEDY = "`git checkout weights` brings back what comes with the project"


def load(model, name, folder=FOLDER):
    """Give the model the numbers in NAME.npz, in evaluation mode; returns it.

    Raises FileNotFoundError or ValueError, in one line, unless file and record belong together and fit the model, name by name and shape
    by shape; the model is then as it was.
    """
    path = Path(folder) / f"{name}.npz"
    expected = record(name, folder)["sha256"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there are no weights {name}: weights/{path.name} is missing. {REMEDY}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"weights/{path.name} is damaged, or not the file that {name}.json describes. {REMEDY}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {key: torch.from_numpy(file[key]) for key in file.files}
    except Exception as error:  # zipfile, zlib, numpy and torch have many names for a file that is none of theirs
        raise ValueError(f"weights/{path.name} holds no arrays ({type(error).__name__}). {REMEDY}") from None
    own = model.state_dict()
    for key in [*own, *found]:
        ours, theirs = (str(tuple(part[key].shape)) if key in part else "nothing" for part in (own, found))
        if ours != theirs:
            raise ValueError(f"weights/{path.name} is of another network: {key} is {theirs} there and {ours} here")
        if own[key].is_floating_point() != found[key].is_floating_point() or not found[key].isfinite().all():
            raise ValueError(f"weights/{path.name} has something else than numbers for {key}. {REMEDY}")
    model.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in found.items()})
    return model.eval()
