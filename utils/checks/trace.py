"""What a network does, step by step: each operation with its weights, its settings and what it reads, however it is written.

It sees operations and not modules, so nn.Conv2d, F.conv2d with a parameter, a lazy layer and a subclass all look the same:

    with Trace(model, x) as trace:
        out = model(x)
    trace.formula(out)      # 'relu(bn2(conv2(relu(bn1(conv1(x))))) + x)', with the names that the layers have in the model
    trace.layers("conv")    # its convolutions in the order of their use
"""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

KINDS = {
    "conv2d": "conv", "linear": "linear", "batch_norm": "norm", "instance_norm": "instance norm", "group_norm": "group norm",
    "layer_norm": "layer norm", "max_pool2d": "max-pooling", "max_pool2d_with_indices": "max-pooling", "avg_pool2d": "average pooling",
    "adaptive_avg_pool2d": "adaptive average pooling", "adaptive_max_pool2d": "adaptive max-pooling", "dropout": "dropout",
    "dropout_": "dropout", "dropout1d": "dropout1d", "dropout2d": "dropout2d", "feature_dropout": "dropout2d",
    "alpha_dropout": "alpha dropout", "concat": "cat", "concatenate": "cat", "relu_": "relu", "add_": "add", "__radd__": "add",
    "__iadd__": "add", "sum": "sum", "mul_": "mul", "multiply": "mul", "__imul__": "mul",
}  # fmt: skip
LAYERS = ("conv", "linear", "norm", "instance norm", "group norm", "layer norm")
SILENT = {"contiguous", "to", "float", "double", "type", "type_as", "clone", "view_as", "requires_grad_", "__get__", "squeeze"}


class Step:
    """One operation. reads: the steps whose outputs it takes. given: its tensor arguments. settings: the others, by name."""

    def __init__(self, kind, reads=(), given=(), settings=None, output=None, function=None, name=""):
        self.kind, self.reads, self.given, self.settings, self.output = kind, list(reads), list(given), settings or {}, output
        self.function, self.name = function, name  # function(x): the same operation, with the same weights, on another x

    @property
    def weight(self):
        return self.settings.get("weight")

    @property
    def shape(self):
        return tuple(self.output.shape)

    def before(self, kinds=LAYERS):
        """The nearest steps of these kinds that it depends on."""
        found, todo, seen = [], list(self.reads), set()
        while todo:
            step = todo.pop(0)
            if id(step) in seen:
                continue
            seen.add(id(step))
            if step.kind in kinds:
                found.append(step)
            else:
                todo += step.reads
        return found

    def describe(self):
        """In a learner's words: '3×3 convolution 16 → 32, stride 2, padding 1, no bias'."""
        settings, weight = self.settings, self.weight
        if self.kind == "conv":
            out, inside, *kernel = weight.shape
            parts = [f"{kernel[0]}×{kernel[1]} convolution {inside * settings['groups']} → {out}"]
            parts += [f"{name} {_short(settings[name])}" for name in ("stride", "padding", "dilation", "groups")
                      if _short(settings[name]) != (1 if name in ("stride", "dilation", "groups") else None)]  # fmt: skip
            return ", ".join([*parts, "with bias" if settings["bias"] is not None else "no bias"])
        if self.kind == "linear":
            return f"linear layer {weight.shape[1]} → {weight.shape[0]}" + (", no bias" if settings["bias"] is None else "")
        if self.kind == "norm":
            return f"BatchNorm{max(1, self.given[0].dim() - 2)}d({self.given[0].shape[1]})"
        if "pooling" in self.kind and "kernel_size" in settings:
            stride = settings.get("stride")
            stride = settings["kernel_size"] if stride is None or stride == [] else stride
            return f"{_short(settings['kernel_size'])}×{_short(settings['kernel_size'])} {self.kind} with stride {_short(stride)}"
        if self.kind.startswith("dropout"):
            return f"{self.kind} with p={settings.get('p', 0.5)}"
        return self.kind


class Trace(TorchFunctionMode):
    def __init__(self, model, x, names=("x",)):
        super().__init__()
        self.model, self.steps, self.failed, self._of, self._kept, self.touched, self.names = model, [], None, {}, [], set(), set()
        for name, tensor in zip(names, x if isinstance(x, (tuple, list)) else [x], strict=False):
            self._of[id(tensor)] = Step(name, output=tensor, name=name)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        if name == "__get__":
            name = getattr(getattr(function, "__self__", None), "__name__", name)
            name = name if name in ("data", "T", "mT") else "__get__"
        try:
            output = function(*args, **kwargs)
        except Exception:
            tensors = _tensors(args) + _tensors(kwargs.values())
            self.failed = self.failed or (name, [tuple(t.shape) for t in tensors], tensors)
            raise
        tensors = _tensors(args) + _tensors(kwargs.values())
        self.names.add(name)
        if name not in ("__get__", "size", "dim", "numel"):
            self.touched.update(map(id, tensors))  # parameters that have taken part
        reads = [self._of[id(t)] for t in tensors if id(t) in self._of]
        results = _tensors([output])
        if name == "__setitem__":
            results = [args[0]]
        if not results or not (reads or name in ("conv2d", "batch_norm", "linear")):
            return output
        step = _step(name, function, args, kwargs, reads, tensors, results[0])
        if step.kind in LAYERS:
            reads = [self._of[id(t)] for t in step.given if id(t) in self._of]
            step.reads = reads
        if step.kind in SILENT and reads:
            step = reads[0]
        else:
            self.steps.append(step)
        for result in results:
            self._of[id(result)] = step
            self._kept.append(result)  # an id is only unique while its tensor lives
        return output

    @property
    def outputs(self):
        """The ids of x and of all that was made of it."""
        return set(self._of)

    def layers(self, *kinds):
        return [step for step in self.steps if step.kind in (kinds or LAYERS)]

    def step(self, tensor):
        return self._of.get(id(tensor))

    def name(self, step):
        """What a layer is called in the model: 'conv1', 'body.0'; else what it does."""
        for name, parameter in self.model.named_parameters() if isinstance(self.model, nn.Module) else ():
            if parameter is step.weight:
                name = name.removesuffix(".weight")
                return f"{step.kind}[{name}]" if name.isdigit() else name
        if step.kind == "conv" and step.weight is not None:
            return f"conv{step.weight.shape[2]}×{step.weight.shape[3]}"
        return {"norm": "BN", "max-pooling": "max_pool", "average pooling": "avg_pool"}.get(step.kind, step.kind.replace(" ", "_"))

    def formula(self, tensor, limit=240):
        """How a tensor was made, as one line; None if that is unknown or too long."""
        step = self.step(tensor)
        text = self._formula(step, 40) if step and len(self.steps) <= 60 else None  # a deep network has too many paths
        return text if text and len(text) <= limit else None

    def _formula(self, step, depth):
        if not depth:
            return "…"
        inner = [self._formula(read, depth - 1) for read in step.reads]
        if not step.reads:
            return step.name or step.kind
        if step.kind in ("add", "mul", "sub", "div"):
            sign = {"add": "+", "mul": "·", "sub": "−", "div": "/"}[step.kind]
            others = [_short(value) for value in step.settings.get("numbers", ())]
            inner = [f"({part})" if sign != "+" and any(f" {s} " in part for s in "+−") else part for part in inner]
            return f" {sign} ".join([*inner, *map(str, others)])
        return f"{self.name(step)}({', '.join(inner)})"


def _step(name, function, args, kwargs, reads, tensors, output):
    kind, settings, again = KINDS.get(name, name), {}, None
    if name in ("clamp", "clamp_", "clamp_min", "clamp_min_", "threshold", "threshold_", "maximum", "max", "hardtanh"):
        kind = "relu" if not output.isnan().any() and torch.equal(output, torch.relu(reads[0].output if reads else output)) else name
    if kind == "conv":
        settings = _named(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, kwargs,
                          {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1})  # fmt: skip
    elif kind == "linear":
        settings = _named(("input", "weight", "bias"), args, kwargs, {"bias": None})
    elif kind == "norm":
        settings = _named(("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"), args, kwargs,
                          {"running_mean": None, "running_var": None, "weight": None, "bias": None, "training": False})  # fmt: skip
    elif "pooling" in kind or kind.startswith("dropout") or kind == "alpha dropout":
        names = ("input", "p", "training") if "dropout" in kind else ("input", "kernel_size", "stride", "padding")
        if kind.startswith("adaptive"):
            names = ("input", "output_size")
        settings = _named(names, args, kwargs, {})
    elif kind in ("add", "mul", "sub", "div"):
        settings = {"numbers": [a for a in args if isinstance(a, (int, float))]}
    given = settings.pop("input", None)
    if kind in LAYERS and given is not None:
        tensors = [given]

        def again(x):
            return function(x, **settings)

    return Step(kind, reads, tensors, settings, output, again)


def _named(names, args, kwargs, defaults):
    return {**defaults, **dict(zip(names, args, strict=False)), **{k: v for k, v in kwargs.items() if k != "inplace"}}


def _tensors(values):
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors(value)
    return found


def _short(value):
    """(2, 2) -> 2"""
    if isinstance(value, (tuple, list)) and value and all(part == value[0] for part in value):
        value = value[0]
    return round(value, 4) if isinstance(value, float) else value
