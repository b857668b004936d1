"""What the checks of stages and whole networks share: which blocks an answer has made, in which order they run, and what that means."""

from itertools import groupby

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from . import guard
from .compare import Case
from .guard import Failed


class Probe(nn.Module):
    """A block of the check's own, called as BasicBlock and Bottleneck are, and cheap. Subclasses have another expansion."""

    expansion = 1
    preactivated = False

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out = channels * self.expansion
        self.given = int(in_channels), int(channels), int(stride)
        self.conv = nn.Conv2d(1, out, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.register_buffer("mixed", torch.arange(out) % in_channels, persistent=False)

    def forward(self, x):
        (wide, _, stride), out = self.given, self.norm.num_features
        if x.shape[1] != wide:
            raise RuntimeError(
                f"Given groups=1, weight of size [{out}, {wide}, 1, 1], expected input{list(x.shape)} to have {wide} channels, "
                f"but got {x.shape[1]} channels instead"
            )
        pixels = x[:, :, ::stride, ::stride][:, self.mixed]
        return torch.relu(self.norm(self.conv(x.mean(1, keepdim=True)) + pixels))


Two = type("BlockOfExpansion2", (Probe,), {"expansion": 2})
Three = type("BlockOfExpansion3", (Probe,), {"expansion": 3})
Four = type("BlockOfExpansion4", (Probe,), {"expansion": 4})
One = type("BlockOfExpansion1", (Probe,), {})


class NamedCase(Case):
    """A case whose arguments may be classes and lists."""

    def __str__(self):
        arguments = [getattr(a, "__name__", None) or str(a) for a in self.arguments]
        return f"{self.name}({', '.join([*arguments, *(f'{k}={v!r}' for k, v in self.keywords.items())])})"


class Careful(guard.Answer):
    """An Answer that is given lists of its own, and must leave them as they are."""

    def __init__(self, answer):
        self.__dict__ = answer.__dict__

    def __call__(self, *args, **kwargs):
        mine = [list(a) if isinstance(a, list) else a for a in args]
        made = super().__call__(*mine, **kwargs)
        for before, now in zip(args, mine, strict=True):
            if isinstance(before, list) and before != now:
                raise Failed(
                    "its arguments stay as they were",
                    f"Found: the list `layers` was {before} before the call, and is {now} after it.\n"
                    "pop(), reverse(), +=, and an assignment to layers[i] change the caller's own list: the table of all networks. Use "
                    "layers[i], a loop over it, or a copy, list(layers).",
                )
        return made


def improved(rows, explain):
    """The rows of a check; where one fails, explain() may know a better hint."""
    while True:
        try:
            claim, holds, hint = next(rows)
        except StopIteration as end:
            return end.value
        if holds is False:
            try:
                better = explain()
            except Failed:  # it doesn't come that far
                better = None
            hint = (better, *([hint] if isinstance(hint, str) else hint)[1:]) if better else hint
        yield claim, holds, hint


# ---- which blocks there are -----------------------------------------------------------------------------------------


class Seen:
    """What an answer makes of a case: model, and its blocks in the order in which they run (else in that of the model's list)."""

    def __init__(self, answer, case, kind):
        self.case, self.model, self.error, self.blocks, self.out = case, None, None, [], None
        try:
            self.model = answer(*case.arguments, **case.keywords)
        except Failed as failed:
            self.error = failed
            return
        if not isinstance(self.model, nn.Module):
            return
        ran = []
        hook = register_module_forward_pre_hook(lambda module, args: ran.append(module) if isinstance(module, kind) else None)
        try:
            with torch.no_grad():
                self.out = answer.run(self.model.eval(), torch.randn(case.shapes[0]))
            self.blocks = ran
        except Failed as failed:
            self.error = failed
            self.blocks = [module for module in self.model.modules() if isinstance(module, kind)]
        finally:
            hook.remove()

    @property
    def given(self):
        return [arguments(block) for block in self.blocks]


def arguments(block):
    """(in_channels, channels, stride) that a block was made with."""
    if isinstance(block, Probe):
        return block.given
    return block.conv1.in_channels, block.conv2.out_channels, block.conv1.stride[0] * block.conv2.stride[0]


def as_calls(name, given):
    """'ResidualBlock(16, 32, stride=2), 2 × ResidualBlock(32, 32)'"""
    texts = [f"{name}({i}, {c}{f', stride={s}' if s != 1 else ''})" for i, c, s in given]
    counted = [(text, len(list(same))) for text, same in groupby(texts)]
    return ", ".join(f"{n} × {text}" if n > 1 else text for text, n in counted) or "no block"


AGAIN = "[block] * n is n times the same block, with the same weights: make a new one each time, in a loop."


def again(seen):
    """What to say if one block stands at several places, or if blocks are made and don't run; else None."""
    ran, different = len(seen.blocks), len(set(map(id, seen.blocks)))
    if different < ran:
        return (
            f"Found: in {seen.case}, one block stands at several places: {ran} blocks run, and {different} of them are different.\n{AGAIN}"
        )
    made = {id(m) for m in seen.model.modules() if any(type(m) is type(block) for block in seen.blocks)}
    if seen.out is not None and different < len(made):
        return (
            f"Found: {seen.case} makes {len(made)} blocks, and {different} of them run when it is called.\n"
            "Each must read what the one before gives."
        )
    return None


def stage_hint(seen, expected, name, expansion=1, out="channels"):
    """What is wrong with the blocks of one stage; None if they are as expected. expected: as Seen.given. out: what the stub calls them."""
    found, case = seen.given, seen.case
    if not found:
        return None
    if hint := again(seen):
        return hint
    if found == expected:
        return None
    text = f"Found: {case} has the blocks {as_calls(name, found)}.\nExpected: {as_calls(name, expected)}.\n"
    (wide, width, stride), count = expected[0], len(expected)
    strides, widths = [s for *_, s in found], [c for _, c, _ in found]
    if len(found) != count:
        way = "too many" if len(found) > count else "too few"
        return text + f"That is {abs(len(found) - count)} {way}: the number of blocks is the argument `blocks`, the first included."
    if sorted(found) == sorted(expected):
        return text + "They are the right ones, but they stand in another order: the first block changes the shape, then come the others."
    if widths != [width] * count:
        if expansion > 1 and width * expansion in widths:
            return text + f"Every block is given `{out}`, here {width}: it multiplies by its expansion itself."
        if found[0][:2] == (width, wide):
            return (
                text + f"in_channels is what the first block reads, and `{out}` what it is given as second argument: here they are swapped."
            )
        return text + f"Every block is given `{out}`, here {width}, as second argument: the first, too."
    if strides != [s for *_, s in expected]:
        if strides == [stride] * count:
            return text + "The stride belongs to the first block alone: every further one would make the image smaller again."
        if strides[0] != stride and found[0][0] != wide:
            return text + f"The first block itself reads `in_channels`, here {wide}, and has the stride, here {stride}."
        if strides[0] != stride:
            alone = ", and no other block" if stride in strides[1:] and stride != 1 else ""
            return text + f"The first block has the stride that is given, here {stride}{alone}."
        return text + "The stride belongs to the first block alone: all others have 1."
    if found[0][0] != wide:
        return text + f"The first block reads `in_channels`, here {wide}."
    if all(i == wide for i, *_ in found):
        return text + f"Only the first block reads in_channels: all others read what the block before them gives, {width * expansion}."
    if expansion != 1:
        return text + f"A block gives channels * block.expansion, here {width} · {expansion}: that is what all others read."
    return text + f"All blocks after the first read what the block before them gives, {width}."


NO_MODULE = (
    r"is not a Module subclass",
    "nn.Sequential takes modules, one by one: nn.Sequential(*blocks) for a list of them. A class is no module before it is called.",
)


def not_in_a_row(seen, expected):
    """What to say if the blocks are the right ones, and one of them still gets another number of channels than it reads."""
    if seen.error is None or seen.given != expected or "expected input" not in str(seen.error.error):
        return None
    found = seen.error.hints[0].splitlines()[0]
    return f"{found}\nThe blocks are the right ones. Each must read what the block before it gives: x = block(x)."


def returned(seen, answer):
    """What an answer that returns no usable stage has returned; None if it has, or fails before."""
    thing, case = seen.model, seen.case
    if isinstance(answer.thing, nn.Module):
        return f"Found: a module that is built already.\nHand over the function itself, without brackets: {case.name}, not {case.name}(…)."
    if seen.error is not None and thing is None or isinstance(thing, nn.Module) and not isinstance(thing, nn.ModuleList):
        return None
    if thing is None:
        return f"Found: {case} returns None.\nIts last line needs `return`."
    if isinstance(thing, type):
        return f"Found: {case} returns the class {thing.__name__}.\nReturn a module: nn.Sequential(*blocks)."
    kind = f"an nn.{type(thing).__name__}" if isinstance(thing, nn.Module) else f"a {type(thing).__name__}"
    return f"Found: {case} returns {kind}, which can't be called on images.\nPut the blocks into nn.Sequential(*blocks), and return that."


def network_hint(seen, layers, widths, expansion, name, first=64, strides=(1, 2, 2, 2), table="`layers`", start="", block=None):
    """What is wrong with the blocks of a whole network; None if they are as expected."""
    found, case = seen.given, seen.case
    expected, now = [], first
    for width, blocks, stride in zip(widths, layers, strides, strict=False):
        expected += [(now, width, stride)] + [(width * expansion, width, 1)] * (blocks - 1)
        now = width * expansion
    others = {type(made).__name__ for made in seen.blocks if block and type(made) is not block}
    if others or block and seen.out is not None and not found:
        made = " and ".join(sorted(others)) or "none of the blocks that are known"
        return (
            f"Found: {case} is made of {made}.\nEvery block is made by the argument `block`, whatever class it is: here "
            f"{block.__name__}, with {block.__name__}.expansion = {block.expansion}."
        )
    if not found:
        return None
    if hint := again(seen):
        return hint
    if found == expected:
        return None
    text = f"Found: {case} has the blocks {as_calls(name, found)}.\nExpected: {as_calls(name, expected)}.\n"
    counts = {width: sum(c == width for _, c, _ in found) for width in widths}
    right = dict(zip(widths, layers, strict=False))
    order = [width for width, _ in groupby(c for _, c, _ in found)]
    times = ", which each block multiplies by its expansion" if expansion > 1 else ""
    if set(order) != set(widths):
        return f"{text}The stages have {', '.join(map(str, widths))} channels{times}."
    if order != list(widths):
        return f"{text}The stages stand in another order: first {widths[0]} channels, then {', '.join(map(str, widths[1:]))}."
    if counts != right:
        numbers = ", ".join(map(str, counts.values()))
        if sorted(counts.values()) == sorted(right.values()):
            return f"{text}The stages have {numbers} blocks, in another order than {table} says: {', '.join(map(str, layers))}."
        return f"{text}The stages have {numbers} blocks; {table} says {', '.join(map(str, layers))}."
    for number, width in enumerate(widths):
        mine, theirs = ([row for row in rows if row[1] == width] for rows in (found, expected))
        if [s for *_, s in mine] != [s for *_, s in theirs]:
            if all(s == strides[number] for *_, s in mine) and strides[number] != 1:
                return f"{text}In stage {number + 1}, every block has the stride: it belongs to the first block of a stage alone."
            if number == 0:
                return f"{text}Stage 1 has stride 1{start}; the first block of each later stage has stride 2."
            return f"{text}Stage {number + 1} starts with a block of stride {strides[number]}; all its other blocks have stride 1."
        if mine != theirs:
            if mine[0] != theirs[0]:
                return f"{text}The first block of stage {number + 1} reads what the part before it gives: {theirs[0][0]} channels."
            return f"{text}In stage {number + 1}, the blocks after the first read what a block of it gives: {theirs[-1][0]} channels."
    return text
