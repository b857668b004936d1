"""What the checks of residual blocks share: how the two paths can be joined wrongly, and what to say about their layers."""

import itertools

import torch
import torch.nn.functional as F

EARLY = "The ReLU is applied to the residual before the addition: it can then never be negative. Add first, then apply the ReLU."
OVERWRITTEN = "The shortcut must read the block's input, x: is x overwritten on the main path? Keep it under a name of its own."
CAUSES = [(r"weight of size \[\d+, \d+, 1, 1\]", OVERWRITTEN + " The projection goes from the block's input to its output channels.")]
OTHER_ACTIVATIONS = {
    "a LeakyReLU": F.leaky_relu, "a GELU": F.gelu, "a SiLU": F.silu, "an ELU": F.elu, "a tanh": torch.tanh, "a sigmoid": torch.sigmoid,
    "a ReLU6": F.relu6,
}  # fmt: skip


def added_wrongly(first, last):
    """(hint, function(r, x)): variations of a residual block r, for compare.network; those with one mistake first, then with several.

    first(r, x, act): the main path up to its last convolution, with `act` for each ReLU in it. last(r, residual): its last BN.
    """
    relu = torch.relu
    middle = [
        (None, relu),
        ("The ReLU between the convolutions is missing.", lambda x: x),
        *[(f"Between the convolutions stands {name}: the block has a ReLU there.", act) for name, act in OTHER_ACTIVATIONS.items()],
    ]
    join = [
        (None, lambda r, f, s: last(r, f) + s),
        (EARLY, lambda r, f, s: relu(last(r, f)) + s),
        ("The shortcut is not added: return ReLU(F(x) + shortcut(x)).", lambda r, f, s: last(r, f)),
        ("The shortcut is multiplied by the residual: add it.", lambda r, f, s: last(r, f) * s),
        ("The shortcut is subtracted: add it.", lambda r, f, s: last(r, f) - s),
        ("The residual is subtracted from the shortcut: add it.", lambda r, f, s: s - last(r, f)),
        ("The shortcut is added before the last BN: add it after that BN.", lambda r, f, s: last(r, f + s)),
        ("The shortcut is added twice.", lambda r, f, s: last(r, f) + s + s),
        ("A ReLU stands on the shortcut: add it as it is.", lambda r, f, s: last(r, f) + relu(s)),
        ("The mean of both paths is taken: add them.", lambda r, f, s: (last(r, f) + s) / 2),
        ("The larger of both paths is taken: add them.", lambda r, f, s: torch.maximum(last(r, f), s)),
        ("The residual is added to itself: " + OVERWRITTEN, lambda r, f, s: 2 * last(r, f)),
        ("The residual alone is returned: the main path's result is dropped.", lambda r, f, s: s),
    ]
    end = [
        (None, relu),
        ("The ReLU after the addition is missing.", lambda x: x),
        *[(f"After the addition stands {name}: the block ends with a ReLU.", act) for name, act in OTHER_ACTIVATIONS.items()],
    ]
    many = itertools.product(middle[:2], join, end[:2])
    single = [*((option, join[0], end[0]) for option in middle[2:]), *((middle[0], join[0], option) for option in end[2:])]
    for options in sorted([*many, *single], key=lambda options: sum(hint is not None for hint, _ in options)):
        hints = [hint for hint, _ in options if hint]
        if hints:
            (_, act), (_, added), (_, final) = options
            yield " ".join(hints), lambda r, x, act=act, added=added, final=final: final(added(r, first(r, x, act), r.shortcut(x)))
    for name, act in OTHER_ACTIVATIONS.items():
        yield f"The activations are {name}: the block has ReLUs.", lambda r, x, act=act: act(last(r, first(r, x, act)) + r.shortcut(x))


def cut_off(main):
    """(hint, function(r, x)): the block with the right outputs and other gradients. main(r, x): its main path."""
    relu, how = torch.relu, "is cut off from the gradient (.detach(), .data, no_grad)"
    yield f"The shortcut {how}: it is there as the gradient's way round.", lambda r, x: relu(main(r, x) + r.shortcut(x).detach())
    yield f"The shortcut's input {how}.", lambda r, x: relu(main(r, x) + r.shortcut(x.detach()))
    yield f"The main path {how}: its convolutions never learn.", lambda r, x: relu(main(r, x).detach() + r.shortcut(x))
    yield f"The main path's input {how}.", lambda r, x: relu(main(r, x.detach()) + r.shortcut(x))
    yield (
        f"The block's input {how}: nothing before this block would learn.",
        lambda r, x: relu(main(r, x.detach()) + r.shortcut(x.detach())),
    )


def _extra(step):
    if step.kind == "conv" and step.weight.shape[2:] == (1, 1):
        return "Where the shape stays the same, the shortcut is the identity: add x itself, that lets the signal through unchanged."
    return ""


layer_advice = {
    "kernel": "The convolutions of the main path are 3×3, that of the shortcut is 1×1.",
    "stride": "The first convolution and the shortcut have the block's stride; the second convolution has stride 1.",
    "extra": _extra,
}
