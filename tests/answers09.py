"""Right and wrong answers to the exercises of notebook 09."""

import torch
import torch.nn.functional as F

from utils import checks, inside


def hook(function):
    """skip(block) that registers this hook."""
    return lambda block: block.register_forward_hook(function)


def named(block):
    def only_shortcut(module, args, result):
        (x,) = args
        return module.shortcut(x)

    return block.register_forward_hook(only_shortcut)


def closed_over(block):
    return block.register_forward_hook(lambda *a: block.shortcut(*a[1]))


def with_no_grad(block):
    def hook(module, inputs, output):
        return module.shortcut(inputs[0]).relu()

    return block.register_forward_hook(hook)


class Handle:
    """A handle of one's own: the block's forward is replaced, and put back."""

    def __init__(self, block):
        self.block = block
        block.forward = lambda x: block.shortcut(x)

    def remove(self):
        del self.block.forward


def silent_layers(block):
    return block.bn2.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))


def kept_outside(block):
    kept = {}
    block.register_forward_pre_hook(lambda module, inputs: kept.update(x=inputs[0]))
    return block.register_forward_hook(lambda module, inputs, output: module.shortcut(kept["x"]))


def zeroed(block):
    torch.nn.init.zeros_(block.bn2.weight)
    torch.nn.init.zeros_(block.bn2.bias)
    return block.register_forward_hook(lambda *_: None)


def first_only(block):
    kept = []

    def hook(module, inputs, output):
        kept.append(module.shortcut(inputs[0]))
        return kept[0]

    return block.register_forward_hook(hook)


def no_handle(block):
    block.register_forward_hook(lambda module, inputs, output: module.shortcut(inputs[0]))


def two_hooks(block):
    block.register_forward_hook(lambda module, inputs, output: module.shortcut(inputs[0]))
    return block.register_forward_hook(lambda module, inputs, output: module.shortcut(inputs[0]))


def a_list(block):
    return hook(lambda m, i, o: [m.shortcut(i[0])])(block)


SKIP_RIGHT = {
    "a lambda": hook(lambda module, inputs, output: module.shortcut(inputs[0])),
    "a named hook": named,
    "closed over the block": closed_over,
    "a ReLU that changes nothing": with_no_grad,
    "a handle of one's own": Handle,
    "the layers silenced": silent_layers,
}
SKIP_WRONG = {
    "returns nothing": (hook(lambda module, inputs, output: None), "A hook changes the output only if it *returns* something"),
    "the tuple": (hook(lambda module, inputs, output: module.shortcut(inputs)), "the image maps are inputs[0]"),
    "gives the tuple back": (hook(lambda module, inputs, output: inputs), "the block now gives a tuple"),
    "the input": (hook(lambda module, inputs, output: inputs[0]), "also where the shape changes"),
    "zeros": (hook(lambda module, inputs, output: torch.zeros_like(output)), "its shortcut must stay"),
    "of the output": (hook(lambda module, inputs, output: module.shortcut(output)), ""),
    "added": (hook(lambda module, inputs, output: output + module.shortcut(inputs[0])), "give back the shortcut alone"),
    "subtracted": (hook(lambda module, inputs, output: output - module.shortcut(inputs[0])), "The shortcut is subtracted from the output"),
    "two arguments": (hook(lambda module, inputs: module.shortcut(inputs[0])), "hook(module, inputs, output)"),
    "calls itself": (hook(lambda module, inputs, output: module(inputs[0])), "starts the hook again"),
    "no handle": (no_handle, "return it to the caller"),
    "the hook runs once": (first_only, "the second pass gives something else"),
    "two hooks": (two_hooks, "One hook, and its own handle"),
    "a pre-hook is left": (kept_outside, "One hook, and its own handle"),
    "weights set to zero": (zeroed, "Found:"),
    "a list": (a_list, "the block now gives a list"),
    "the layers' part": (
        hook(lambda m, i, o: m.bn2(m.conv2(F.relu(m.bn1(m.conv1(i[0])))))),
        "F(x) alone",
    ),
    "returns the block": (lambda block: block, "Found: skip(block) returns a"),
}


def lengths(tensor):
    return tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))


def scaled(function):
    """function(drawn, weight) for weights of two dimensions and more; zeros for the rest."""
    return lambda drawn, weight: function(drawn, weight) if weight.dim() > 1 else torch.zeros_like(weight)


def in_a_loop(drawn, weight):
    out = torch.zeros_like(drawn)
    if weight.dim() > 1:
        for i in range(len(weight)):
            out[i] = drawn[i] / drawn[i].norm() * weight[i].norm()
    return out


def over_dimensions(drawn, weight):
    if weight.ndim == 1:
        return drawn * 0
    dims = tuple(range(1, weight.ndim))
    return drawn * (weight.pow(2).sum(dims, keepdim=True) / drawn.pow(2).sum(dims, keepdim=True)).sqrt()


def by_linalg(d, w):
    if d.dim() < 2:
        return torch.zeros(d.shape)
    axes = list(range(1, d.dim()))
    norm = lambda t: torch.linalg.vector_norm(t, dim=axes, keepdim=True)  # noqa: E731
    return d * norm(w) / (norm(d) + 1e-10)


def by_einsum(d, w):
    if d.dim() < 2:
        return d - d
    return torch.einsum("i...,i->i...", d, w.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1))


def normalised_first(d, w):
    return F.normalize(d.flatten(1), dim=1).view_as(d) * lengths(w) if d.dim() > 1 else torch.zeros_like(d)


def written_into(d, w):
    if d.dim() == 1:
        return d.zero_()
    d *= lengths(w) / lengths(d)
    return d


def nothing(drawn, weight):
    drawn * lengths(weight)


NORM_RIGHT = {
    "a loop over the filters": in_a_loop,
    "sums over dimensions": over_dimensions,
    "vector_norm": by_linalg,
    "einsum": by_einsum,
    "normalize": normalised_first,
}
NORM_WRONG = {
    "as they are": (scaled(lambda d, w: d), "come back as they are"),
    "one length for all": (scaled(lambda d, w: d * w.norm() / d.norm()), "each output channel has a norm of its own"),
    "length 1": (scaled(lambda d, w: d / lengths(d)), "multiply it by the length of the network's own"),
    "not divided": (scaled(lambda d, w: d * lengths(w)), "not divided by their own"),
    "upside down": (scaled(lambda d, w: d * lengths(d) / lengths(w)), "upside down"),
    "squares": (scaled(lambda d, w: d * lengths(w) ** 2 / lengths(d) ** 2), "its root is missing"),
    "input channels": (
        scaled(lambda d, w: d * w.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (w.dim() - 2))
               / d.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (w.dim() - 2))),
        "one *output* channel",
    ),
    "each kernel": (scaled(lambda d, w: d * w.norm(dim=(2, 3), keepdim=True) / d.norm(dim=(2, 3), keepdim=True)), "over all input"),
    "mean absolute value": (
        scaled(lambda d, w: d * (w.flatten(1).abs().mean(1) / d.flatten(1).abs().mean(1)).view(-1, *[1] * (d.dim() - 1))),
        "mean absolute value",
    ),
    "the weights": (scaled(lambda d, w: w * 1.0), "scale the drawn numbers"),
    "BN moves": (lambda d, w: normalised_first(d, w) if d.dim() > 1 else d * w.norm() / d.norm(), "must not move BN and biases"),
    "no case for BN": (lambda d, w: d * lengths(w) / lengths(d), "flatten(1) works from two on"),
    "lengths without their shape": (
        scaled(lambda d, w: d * w.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)),
        "must meet all its weights",
    ),
    "in place": (written_into, "Make a new tensor"),
    "no return": (nothing, "Found:"),
    "a zero for BN": (lambda d, w: normalised_first(d, w) if d.dim() > 1 else 0.0, "returns a float"),
}  # fmt: skip


def cam(weigh=None, score=None, end=None, keep=lambda output: output, remove=True, back=None):
    """Grad-CAM with places for mistakes."""

    def grad_cam(network, layer, images, classes):
        kept = []
        handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(keep(output)))
        logits = network(images)
        if remove:
            handle.remove()
        chosen = score(logits, classes) if score else logits[range(len(classes)), classes].sum()
        gradient = back(chosen, kept[0]) if back else torch.autograd.grad(chosen, kept[0])[0]
        maps = weigh(gradient, kept[0]) if weigh else (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)
        maps = end(maps) if end else F.relu(maps) / F.relu(maps).amax((1, 2), keepdim=True)
        return maps.detach()

    return grad_cam


def one_by_one(network, layer, images, classes):
    maps = []
    for image, which in zip(images, classes, strict=True):
        seen = {}
        handle = layer.register_forward_hook(lambda m, i, o, seen=seen: seen.update(a=o))
        score = network(image[None])[0, which]
        handle.remove()
        (g,) = torch.autograd.grad(score, seen["a"])
        m = torch.einsum("c,chw->hw", g[0].mean((1, 2)), seen["a"][0]).clamp_min(0)
        maps.append(m / m.max())
    return torch.stack(maps).detach()


def by_retain_grad(network, layer, images, classes):
    activations = []

    def hook(module, inputs, output):
        output.retain_grad()
        activations.append(output)

    handle = layer.register_forward_hook(hook)
    network(images).gather(1, classes.unsqueeze(1)).sum().backward()
    handle.remove()
    a = activations[0]
    m = ((a.grad.mean(dim=[2, 3], keepdim=True) * a).sum(dim=1)).relu().data
    return m / m.flatten(1).max(1).values[:, None, None]


def by_full_backward_hook(network, layer, images, classes):
    kept = {}
    handles = [
        layer.register_forward_hook(lambda m, i, o: kept.update(a=o.detach())),
        layer.register_full_backward_hook(lambda m, gi, go: kept.update(g=go[0])),
    ]
    out = network(images)
    out.backward(F.one_hot(classes, out.shape[1]).float())
    for handle in handles:
        handle.remove()
    m = F.relu((kept["g"].mean((2, 3))[:, :, None, None] * kept["a"]).sum(1))
    return m / m.amax((1, 2), keepdim=True)


CAM_RIGHT = {
    "the usual way": cam(),
    "the finished one": inside.grad_cam,
    "one by one": one_by_one,
    "retain_grad": by_retain_grad,
    "a backward hook": by_full_backward_hook,
    "the sum of the gradient": cam(weigh=lambda g, a: (g.sum((2, 3), keepdim=True) * a).sum(1)),  # the scale drops out
}
CAM_WRONG = {
    "no ReLU": (cam(end=lambda m: m / m.amax((1, 2), keepdim=True)), "The ReLU is missing"),
    "not scaled": (cam(end=F.relu), "The maps are not scaled"),
    "neither": (cam(end=lambda m: m), "neither cut off at zero nor scaled"),
    "one scale for all": (cam(end=lambda m: F.relu(m) / F.relu(m).max()), "each image has its own"),
    "stretched": (
        cam(end=lambda m: (m - m.amin((1, 2), keepdim=True)) / (m.amax((1, 2), keepdim=True) - m.amin((1, 2), keepdim=True))),
        "cut them off at zero instead",
    ),
    "absolute value": (cam(end=lambda m: m.abs() / m.abs().amax((1, 2), keepdim=True)), "Grad-CAM takes the ReLU"),
    "the largest logit": (cam(score=lambda logits, classes: logits.amax(1).sum()), "of the largest logit"),
    "all logits": (cam(score=lambda logits, classes: logits.sum()), "the sum of all logits"),
    "the probability": (cam(score=lambda logits, c: logits.softmax(1)[range(len(c)), c].sum()), "of the class's probability"),
    "the loss": (cam(score=lambda logits, classes: F.cross_entropy(logits, classes)), "of the loss"),
    "the first class for all": (cam(score=lambda logits, classes: logits[:, classes[0]].sum()), "each has its own in `classes`"),
    "no weights": (cam(weigh=lambda g, a: a.sum(1)), "Every channel counts alike"),
    "not averaged": (cam(weigh=lambda g, a: (g * a).sum(1)), "one weight for each channel"),
    "the gradient alone": (cam(weigh=lambda g, a: g.sum(1)), "the gradient's alone"),
    "the absolute gradient": (cam(weigh=lambda g, a: (g.abs().mean((2, 3), keepdim=True) * a).sum(1)), "its sign says"),
    "cut off": (cam(keep=lambda output: output.detach()), "The activations were cut off"),
    "the hook stays": (cam(remove=False), "a hook is still on the network"),
    "no sum over channels": (cam(weigh=lambda g, a: g.mean((2, 3), keepdim=True) * a, end=F.relu), "The sum goes over the channels"),
    "a score for each image": (cam(score=lambda logits, c: logits[range(len(c)), c], back=lambda s, a: torch.autograd.grad(s, a)[0]),
                               "of one number is needed") ,
    "enlarged": (
        cam(end=lambda m: F.interpolate(F.relu(m)[:, None], scale_factor=4)[:, 0]),
        "Found:",
    ),
}  # fmt: skip

EXERCISES = {
    checks.skip_block: (SKIP_RIGHT, SKIP_WRONG),
    checks.filter_normalised: (NORM_RIGHT, NORM_WRONG),
    checks.grad_cam: (CAM_RIGHT, CAM_WRONG),
}
