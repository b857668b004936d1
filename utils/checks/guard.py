"""Running a learner's code: its errors become feedback, what it prints stays out of it, and nothing that it changes lasts."""

import contextlib
import difflib
import inspect
import linecache
import random
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from IPython.utils.capture import capture_output
from torch import nn

LIMIT = 10  # seconds for all that a check runs of a learner's code
_HERE = Path(__file__).parents[1]
_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], str(_HERE), str(Path(torch.__file__).parent))


class Failed(Exception):
    """A claim that doesn't hold and ends the check: what was found and what to do about it."""

    def __init__(self, claim, *hints, error=None):
        super().__init__(claim)
        self.claim, self.hints, self.error = claim, hints, error


class NotAttempted(Exception):
    """The stub is still there."""


class TooLong(BaseException):  # no Exception: a learner's `except Exception` must not swallow it
    pass


class Answer:
    """A learner's answer, called by a check like the answer itself: answer(32, 64, stride=2).

    run(function, …) does the same for whatever an answer has made: a network, a method. Both raise Failed if the code raises an
    error. `doing` says in words what was tried. `faults` collects the settings of PyTorch that the code has changed, `notes` what a
    check wants to say about an answer that passes.
    """

    def __init__(self, thing, causes=()):
        self.thing, self.causes, self.faults, self.printed, self.notes = thing, causes, {}, [], []
        self._left, self._random = LIMIT, {}

    def __call__(self, *args, **kwargs):
        given = [*(_show(a) for a in args), *(f"{name}={_show(value)}" for name, value in kwargs.items())]
        return self.run(self.thing, *args, doing=f"{_name(self.thing)}({', '.join(given)})", **kwargs)

    def run(self, function, *args, doing="", trace=None, **kwargs):
        before, figures, start = _settings(), _figures(), time.monotonic()
        state = _random_state()
        try:
            with capture_output() as seen, warnings.catch_warnings(), self._limit(), trace or contextlib.nullcontext():
                warnings.simplefilter("ignore")
                result = function(*args, **kwargs)
            return result
        except TooLong:
            raise Failed(
                "it comes to an end",
                f"Found: {doing or 'it'} still runs after {LIMIT} seconds, and was stopped.\n"
                "Is there a loop without an end, or one over far too much?",
            ) from None
        except NotImplementedError as error:
            raise self.not_implemented(error, doing) from error
        except (Exception, SystemExit) as error:  # a learner's code may raise anything
            raise Failed("it runs without an error", *explain(error, doing, trace, self.causes), error=error) from error
        finally:
            self._left -= time.monotonic() - start
            self.printed += [line for line in (seen.stdout + seen.stderr).splitlines() if line.strip()]
            _close(figures)
            self._compare(before, state)

    @contextlib.contextmanager
    def _limit(self):
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            yield  # Windows, and notebooks that run cells in another thread: no limit
            return

        def stop(*_):
            raise TooLong

        old = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(self._left, 0.1), 1)  # again every second, for code that swallows it
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)

    def _compare(self, before, state):
        """Note which settings the code has changed, and put them back."""
        for name, (value, put_back) in before.items():
            now = _SETTINGS[name][0]()
            if now != value:
                self.faults[name] = now
                put_back(value)
        after = _random_state()
        for kind, key in after.items():  # two different states that become the same: it was seeded
            if key != state[kind]:
                if self._random.setdefault(kind, {}).setdefault(key, state[kind]) != state[kind]:
                    self.faults["seed"] = kind

    def not_implemented(self, error, doing):
        text = str(error)
        if match := re.search(r'Module \[(\w+)\] is missing the required "forward" function', text):
            name = match[1]
            if name in ("ModuleList", "ModuleDict"):
                found = f"Found: an nn.{name} is called, {_where(error)}.\n"
                advice = "It only holds layers: call them one after the other in a loop, or make it an nn.Sequential."
                return Failed("it runs without an error", found + advice, error=error)
            methods = [key for key in vars(self.thing)] if inspect.isclass(self.thing) else []
            close = difflib.get_close_matches("forward", methods, 1, 0.6)
            found = f"Found: the class {name} has no method `forward`" + (f", but one called `{close[0]}`." if close else ".")
            return Failed(
                "it has a `forward`",
                f"{found}\nPyTorch calls `forward` when the network is called: check how it is spelt, and that it is indented as a method.",
                error=error,
            )
        frame, last = _frame(error), traceback.extract_tb(error.__traceback__)[-1]
        if frame is None or (last.filename, last.lineno) != (frame.filename, frame.lineno) or (text and "raise" not in (frame.line or "")):
            return Failed("it runs without an error", *explain(error, doing, None, self.causes), error=error)
        return Failed(
            "every step is written",
            f"Found: `raise NotImplementedError` is still there, {_where(error)}, in `{frame.name}`.\n"
            "Write the steps that the comments name; delete that line when they are done.",
            error=error,
        )


def stub(thing):
    """Whether an answer is the untouched stub (True), is half of it (a line that says so), or neither (False)."""
    if thing is None or thing is ...:
        return True
    if inspect.isclass(thing):
        methods = {name: value for name, value in vars(thing).items() if isinstance(value, types.FunctionType)}
        left = [name for name, method in methods.items() if _only_raises(method)]
        written = [name for name, method in methods.items() if name not in left and not _does_nothing(method)]
        if not left:
            return False
        if not written:
            return True
        return f"`{left[0]}` is still the stub: `raise NotImplementedError` is all that it does."
    return isinstance(thing, types.FunctionType) and _only_raises(thing)


def _only_raises(function):
    names = set(function.__code__.co_names)
    return "NotImplementedError" in names and names <= {"NotImplementedError", "super", "__init__"}


def _does_nothing(function):
    return set(function.__code__.co_names) <= {"super", "__init__"} and function.__name__ == "__init__"


# ---- what went wrong ------------------------------------------------------------------------------------------------


def _frame(error):
    """The innermost line of the learner's own code, or None."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    return own[-1] if own else None


def _where(error):
    frame = _frame(error)
    if frame is None:
        return "when it is called"
    line = (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
    return f"in line {frame.lineno}" + (f": {line[:90]}" if line else "")


def explain(error, doing="", trace=None, causes=()):
    """(what was found, what it means and what to do) for an error of a learner's code. causes: (pattern, advice) of the exercise; an
    advice may be a function of the message and of the shapes that were given to the operation that failed."""
    message = " ".join(str(error).split())
    frame = _frame(error)
    found = f"Found: {type(error).__name__}: {message[:300]}"
    place = f"{_where(error)}" if frame else ""
    where = "; ".join(part for part in (doing, place) if part)
    found = f"{found}\n({where})" if where else found
    for pattern, advice in causes:
        if re.search(pattern, f"{type(error).__name__}: {message}"):
            if callable(advice):
                advice = advice(message, trace.failed[1] if trace is not None and trace.failed else [])
            return (f"{found}\n{advice}",)
    advice = _meaning(error, message, trace)
    return (f"{found}\n{advice}",) if advice else (found,)


def _meaning(error, message, trace):
    shapes = trace.failed[1] if trace is not None and trace.failed else []
    if "before Module.__init__()" in message or "object has no attribute '_modules'" in message or "'_parameters'" in message:
        return "`super().__init__()` must be the first line of `__init__`: PyTorch registers layers only after it."
    if match := re.search(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d)", message):
        return _different(shapes, *map(int, match.groups())) if trace is not None else ""
    if match := re.search(r"weight of size \[([\d, ]+)\], expected input\[([\d, ]+)\] to have (\d+) channels, but got (\d+)", message):
        kernel = "×".join(match[1].split(", ")[2:])
        step = trace.step(trace.failed[2][0]) if trace is not None and trace.failed else None
        if step is not None and step.name == "x":
            return f"The {kernel} convolution reads the input, with {match[4]} channels, and was made for {match[3]}: is in_channels first?"
        return f"A {kernel} convolution that was made for {match[3]} channels gets {match[4]} channels: which layer comes before it?"
    if match := re.search(r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)", message):
        given = f", of the shape {shapes[0]}" if shapes else ""
        flat = " Flatten the images before it: x.flatten(1)." if shapes and len(shapes[0]) > 2 else ""
        return f"A linear layer that was made for {match[3]} numbers gets {match[2]}{given}.{flat}"
    if match := re.search(r"running_mean should contain (\d+) elements not (\d+)", message):
        return f"A BatchNorm2d that was made for {match[2]} channels gets {match[1]}: it needs the channels of what it reads."
    if match := re.search(r"expected (4D|3D or 4D|2D or 3D) \w*[, ]*.*got (\d)D", message):
        return f"A layer for images ({match[1]}) gets a tensor with {match[2]} dimensions."
    if (match := re.search(r"^(\w+)\.__init__\(\) (got|takes|missing)", message)) and hasattr(nn, match[1]):
        return f"nn.{match[1]} is called with other arguments than it has: help(nn.{match[1]}) lists them."
    if "unexpected keyword argument" in message or re.search(r"missing \d+ required|takes .*positional argument", message):
        return "The arguments are those of the exercise, with the same names, order and defaults."
    if "modified by an inplace operation" in message or "leaf Variable that requires grad" in message:
        return "Something is changed in place (+=, relu_, inplace=True) that the gradient still needs: make a new tensor instead."
    if "does not require grad and does not have a grad_fn" in message:
        return "The result has lost its gradient: .detach(), .data, .item(), torch.no_grad() and torch.tensor(…) cut it off."
    if isinstance(error, UnboundLocalError):
        return "That name gets a value further down, or only in one branch of an if."
    if isinstance(error, NameError):
        name = getattr(error, "name", "")
        if name in ("torch", "nn", "F", "v2", "np", "plt", "tqdm", "models"):
            return "Run the cell with the imports, at the top of the notebook, and then this one."
        if name in ("self", "x"):
            return f"`{name}` must be an argument of that function."
        method = any("self" in frame.f_locals for frame, _ in list(traceback.walk_tb(error.__traceback__))[-1:])
        layer = f" A layer made in `__init__` is `self.{name}`." if method else ""
        return f"Nothing is called `{name}` there: is it misspelt, or a cell further up not yet run?{layer}"
    if isinstance(error, AttributeError):
        return _attribute(error)
    if isinstance(error, RecursionError):
        return "A function calls itself without an end."
    if "'NoneType'" in message:
        return "Something there is None: a function without `return` gives None, and so do append(), extend() and update()."
    if "padding='same' is not supported" in message:
        return "With a stride, give the padding as a number: padding=1 for a 3×3 kernel."
    if match := re.search(r"Input type \((?:torch\.)?(\w+)\) and (?:weight|bias) type \((?:torch\.)?(\w+)\)", message):
        return f"The input is a {match[1]}, the layer's weights are a {match[2]}: leave .double(), .half(), .cuda() and dtype=… out."
    if re.search(r"shape '\[.*\]' is invalid for input of size", message):
        return "A view or reshape to a fixed shape: the number of images, and their size, may be another one. x.flatten(1) fits all."
    if re.search(r"expected .*(device|dtype)|same dtype|same device|Expected all tensors|type .* should be the same", message):
        return "Tensors of different kinds meet. Make new ones like x: x.new_zeros(…), or torch.zeros(…, dtype=x.dtype, device=x.device)."
    if isinstance(error, TypeError) and "not callable" in message:
        return "Something is called with (…) that is no function and no layer."
    return ""


def _different(shapes, a, b, dimension):
    both = f"{shapes[0]} and {shapes[1]}" if len(shapes) > 1 else f"{a} and {b} in dimension {dimension}"
    text = f"Two tensors meet whose shapes differ: {both}. "
    if dimension == 1:
        return text + f"One path gives {a} channels, the other {b}."
    if abs(a - b) <= 4 and not 1.6 < max(a, b) / max(1, min(a, b)) < 2.6:
        return text + "Height and width differ by a few pixels: a padding is missing or wrong (a 3×3 kernel needs padding=1)."
    return text + "Height and width differ: a stride (or a padding) is on one of the two paths only."


def _attribute(error):
    name, owner = getattr(error, "name", None), getattr(error, "obj", None)
    if owner is None and (match := re.search(r"object has no attribute '(\w+)'", str(error))):
        name = match[1]
        owner = next((f.f_locals["self"] for f, _ in traceback.walk_tb(error.__traceback__) if "self" in f.f_locals), None)
    if owner is None or name is None:
        return ""
    if isinstance(owner, nn.Module):
        have = [key for key, _ in owner.named_children()]
        close = difflib.get_close_matches(name, [*have, *vars(owner)], 1)
        listed = f" Its layers are {', '.join(have[:8])}." if have else ""
        return f"`__init__` makes no `self.{name}`." + (f" Is `self.{close[0]}` meant?" if close else listed)
    if owner is None:
        return "Something there is None: a function without `return` gives None."
    close = difflib.get_close_matches(name, dir(owner), 1)
    return f"A {type(owner).__name__} has no `{name}`." + (f" Is `{close[0]}` meant?" if close else "")


def _name(thing):
    return getattr(thing, "__name__", None) or type(thing).__name__


def _show(value):
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)}"
    return _name(value) if callable(value) else repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"


# ---- what must stay as it is ----------------------------------------------------------------------------------------

_SETTINGS = {
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_default_device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.use_deterministic_algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
}


def _settings():
    return {name: (get(), put) for name, (get, put) in _SETTINGS.items()}


def _random_state():
    return {
        "torch.manual_seed": hash(torch.get_rng_state().numpy().tobytes()),
        "random.seed": hash(random.getstate()),
        "np.random.seed": hash((np.random.get_state()[1].tobytes(), np.random.get_state()[2])),
    }


@contextlib.contextmanager
def own_random_state():
    """Whatever is drawn inside must not shift the notebook's own draws."""
    plain, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(numbers)


def _figures():
    plot = sys.modules.get("matplotlib.pyplot")
    return set(plot.get_fignums()) if plot else set()


def _close(before):
    plot = sys.modules.get("matplotlib.pyplot")
    for number in set(plot.get_fignums()) - before if plot else ():
        plot.close(number)


# ---- where only the numbers of a block may change ---------------------------------------------------------------------


def parts(block):
    """What must stay of all modules: {name: (kind, settings, hooks, names of tensors, the module)}."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        name: (
            type(module),
            {k: v for k, v in vars(module).items() if not k.startswith("_")},
            {hook: len(getattr(module, hook)) for hook in hooks},
            sorted(key for key, tensor in {**module._parameters, **module._buffers}.items() if tensor is not None),
            module,
        )
        for name, module in block.named_modules()
    }


def changed(before, after):
    """What else than numbers has changed, in words; None if nothing has."""
    for name in before.keys() | after.keys():
        label = f"`block.{name}`" if name else "the block itself"
        if name not in after:
            return f"Found: {label} is gone.\nOnly set numbers: take no layer out."
        if name not in before:
            return f"Found: there is a new layer, {label}.\nOnly set numbers in the layers that are there."
        (kind, settings, hooks, tensors, old), (now, others, more, left, new) = before[name], after[name]
        if kind is not now:
            return f"Found: {label} is a {now.__name__} now; before, it was a {kind.__name__}.\nOnly set numbers: replace no layer."
        if old is not new:
            return f"Found: {label} is another layer now, if of the same kind.\nOnly set numbers: replace no layer."
        extra = [key for key in others if key not in settings]
        if "forward" in extra or "__call__" in extra:
            return f"Found: {label} has another `forward` now.\nOnly set numbers: replace no method."
        if hooks != more:
            return (
                f"Found: {label} has a hook now, which changes what goes in or comes out.\nOnly set numbers in the layers that are there."
            )
        if tensors != left:
            return (
                f"Found: {label} has {', '.join(left) or 'no numbers'} now; before, it had {', '.join(tensors)}.\nOnly set their numbers."
            )
        if settings.get("training") != others.get("training"):
            return f"Found: {label} is in another mode than before.\nLeave .train() and .eval() to whoever uses the block."
        different = [key for key in settings if key in others and settings[key] is not others[key] and settings[key] != others[key]]
        different = different or [key for key in settings if key not in others] or extra
        if different:
            return f"Found: `{different[0]}` of {label} is another one than before.\nOnly set numbers: weights and biases, no settings."
    return None
