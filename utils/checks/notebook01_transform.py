"""Check of notebook 01's augmentation: what the transform does to pictures, measured in many draws and then made again.

A picture with three dots, one in each colour, tells how it was flipped, turned and shifted; a second one with the same draws must then
look like the first steps' definition says.
"""

import itertools
import math
import random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from .framework import exercise
from .guard import Failed

DRAWS = 300
OFF, MEDIAN = 0.11, 0.045  # mean difference of pixels that counts: in one picture, in most of them
CENTRE = 15.5
DOTS = ((-8.0, -3.0), (6.0, -6.0), (2.0, 8.0))  # (x, y) from the centre, one for each colour
NAMES = ("RandomHorizontalFlip", "RandomRotation", "RandomCrop", "Normalize")


def pipeline():
    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomHorizontalFlip(p=0.5),
            v2.RandomRotation(15),
            v2.RandomCrop(32, padding=4),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


def _dots():
    grid = torch.arange(32.0) - CENTRE
    picture = torch.stack([255 * torch.exp(-((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2) / 6) for x, y in DOTS], 2)
    return Image.fromarray(picture.round().to(torch.uint8).numpy())


def _colours():
    """A smooth, bright picture without any symmetry."""
    x, y = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="xy")
    picture = torch.stack([60 + 180 * x, 240 - 150 * y, 70 + 150 * (0.7 * x + 0.3 * y * y)], 2)
    return Image.fromarray(picture.round().to(torch.uint8).numpy())


def _flat(*colour):
    return Image.new("RGB", (32, 32), colour)


def _seed(number):
    torch.manual_seed(number), random.seed(number), np.random.seed(number)


def _motions(outputs):
    """For each output of the dots: (flipped or not, angle in degrees, shift x, shift y, size); NaN where a dot is lost."""
    weights = (outputs - outputs.flatten(2).median(2).values[:, :, None, None]).clamp(min=0).double()
    mass = weights.sum((2, 3)).clamp(min=1e-9)
    grid = torch.arange(32.0, dtype=torch.float64) - CENTRE
    x, y = (weights.sum(2) * grid).sum(2) / mass, (weights.sum(3) * grid).sum(2) / mass
    before = torch.cat([torch.tensor(DOTS, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)], 1)
    found = []
    for number in range(len(outputs)):
        matrix = torch.linalg.solve(before, torch.stack([x[number], y[number]], 1))  # rows: of x, of y, shift
        (a, b), (c, d), (right, down) = matrix.tolist()
        flipped = a * d - b * c < 0
        if flipped:
            a, b = -a, -b
        found.append((flipped, math.degrees(math.atan2(-b, a)), right, down, abs(a * d - b * c) ** 0.5))
    return found


def _again(picture, flipped, angle, right, down, smooth, crop_first=False, flip_last=False):
    """The picture as the steps' definition makes it, for known draws."""
    image = tv.to_dtype(tv.to_image(picture), torch.float32, scale=True)
    how = tv.InterpolationMode.BILINEAR if smooth else tv.InterpolationMode.NEAREST

    def turn(image):
        return tv.rotate(image, angle, how)

    def shift(image):
        return tv.crop(tv.pad(image, [8]), 8 - down, 8 - right, 32, 32)

    image = tv.horizontal_flip(image) if flipped and not flip_last else image
    image = turn(shift(image)) if crop_first else shift(turn(image))
    return (tv.horizontal_flip(image) if flipped and flip_last else image) * 2 - 1


@exercise(
    "1.1",
    "train_transform",
    finished=pipeline,
    causes=[
        ("'list' object is not callable|'tuple' object is not callable",
         "A list of steps can't be called: v2.Compose([...]) makes one transform of it."),
        ("'ellipsis' object|Ellipsis", "The ... is still there: replace it by the steps."),
        ("is not defined", "Run the cell with the imports, at the top of the notebook, and the exercise cell after it."),
        ("img should be PIL|pic should be|Expected.*Tensor|should be a Tensor|Unexpected type|only.*Tensor|float.*expected|must be.*tensor",
         "The steps change what they hand on: ToImage and ToDtype come first, since Normalize and others want a tensor of floats."),
        ("required positional|unexpected keyword|missing", "Look at the arguments: RandomCrop(size, padding=…), Normalize(mean, std)."),
        ("does not support PIL", "Start with v2.ToImage() and v2.ToDtype(torch.float32, scale=True): Normalize wants a tensor of floats."),
        ("size of tensor a", "mean and std have three numbers each, one for each colour: [0.5] * 3."),
        ("larger than|smaller than", "A crop of 32×32 needs a picture that large: padding=4 makes it 40×40 first."),
    ],
    ladder=[
        "The steps by their names, in a v2.Compose: ToImage, ToDtype, RandomHorizontalFlip, RandomRotation, RandomCrop, Normalize.",
        "v2.ToDtype(torch.float32, scale=True), v2.RandomHorizontalFlip(p=0.5), v2.RandomRotation(15), v2.RandomCrop(32, padding=4), "
        "v2.Normalize(mean=[0.5] * 3, std=[0.5] * 3).",
    ],
)  # fmt: skip
def train_transform(answer):
    """transform: PIL image, RGB 32×32 -> float32 tensor (3, 32, 32): flip, ±15°, crop with padding 4, normalised to −1 … 1."""
    picture = _colours()
    first = answer.run(answer.thing, picture, doing="train_transform(a PIL image)")
    kind = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, torch.Tensor) else type(first).__name__
    right = kind == "torch.float32 (3, 32, 32)"
    yield "a PIL image becomes a float32 tensor of shape (3, 32, 32)", right, f"Found: {kind}.\n{_kind_advice(first)}"
    if not right:
        return
    same = picture.tobytes() == _colours().tobytes()
    yield "the picture itself is left as it was", same, "Found: its pixels have changed.\nWork on a copy."

    def outputs(picture, draws):
        def all_draws():
            results = []
            for draw in draws:
                _seed(draw)
                results.append(answer.thing(picture))
            return results

        before = (torch.get_rng_state(), random.getstate(), np.random.get_state())
        try:
            results = answer.run(all_draws, doing="many calls")
            odd = [r for r in results if not isinstance(r, torch.Tensor) or r.shape != first.shape or r.dtype != first.dtype]
            if odd:
                hint = f"Found: some calls give a {type(odd[0]).__name__} of another kind.\nEvery picture must go through all steps."
                raise Failed("every call gives the same kind of result", hint)
            return torch.stack(results)
        finally:
            torch.set_rng_state(before[0]), random.setstate(before[1]), np.random.set_state(before[2])
            answer.faults.clear()  # it was this function that set the seeds

    # Colours: the middle of a picture of one colour keeps it.
    found = torch.cat([outputs(_flat(*c), range(5))[:, :, 16, 16] for c in ((255, 255, 255), (0, 0, 0), (204, 51, 102))])
    expected = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0.6, -0.6, -0.2]]).repeat_interleave(5, 0)
    right = bool((found - expected).abs().max() < 0.02)
    yield "colours: 0 … 255 become −1 … 1, each for itself", right, "" if right else _colour_advice(found[::5], found)
    if not right:
        return

    lightest = outputs(_flat(0, 0, 0), range(30)).max().item()
    hint = f"Found: of a black picture, parts become {lightest:.2g}; black is −1.\n"
    hint += (
        "A filling of 0 is gray after Normalize, so Normalize comes last." if abs(lightest) < 0.05 else "Leave the transforms' `fill` at 0."
    )
    yield "what comes in at corners and edges is black", lightest < -0.95, hint
    if lightest > -0.95:
        return

    # Motions: flip, angle, shift.
    dots = outputs(_dots(), range(DRAWS))
    motions = _motions(dots)
    flips, angles, rights, downs, sizes = (torch.tensor(column, dtype=torch.float64) for column in zip(*motions, strict=True))
    alike = bool((dots == dots[0]).all())
    moved = abs(angles[0]) > 1 or rights[0].round() or downs[0].round() or flips[0]
    hint = "Found: the same picture gives the same result in every call.\n"
    hint += "Is a seed set inside, or drawn only once?" if moved else "Nothing is random yet: flip, rotation and crop are missing."
    yield "every call draws anew", not alike, hint
    if alike:
        return
    size = sizes.median().item(), sizes.std().item()
    right = abs(size[0] - 1) < 0.06 and size[1] < 0.06
    hint = f"Found: sizes from {sizes.min().item():.2f} to {sizes.max().item():.2f} of the original.\n"
    yield (
        "their size stays",
        right,
        hint + "RandomCrop only cuts a part out; Resize, RandomResizedCrop, `scale` and `expand` change the size.",
    )
    if not right:
        return
    upside = angles.abs() > 150
    share = flips.mean().item()
    hint = f"Found: {share:.0%} of {DRAWS}"
    if upside.any():
        hint += ", and some stand on their heads.\nUse v2.RandomHorizontalFlip: pictures are flipped left to right, never upside down."
    else:
        hint += ".\nUse v2.RandomHorizontalFlip(p=0.5)."
    yield "about half of the pictures are flipped left to right", 0.41 < share < 0.59 and not upside.any(), hint
    turned = angles[~upside & (rights.abs() < 6) & (downs.abs() < 6)]  # further out, a dot may be cut
    low, high, spread = turned.min().item(), turned.max().item(), turned.std().item()
    right = -16.5 < low < -13 and 13 < high < 16.5 and 7.6 < spread < 9.8
    hint = f"Found: {round(low)}° to {round(high)}° in {DRAWS} draws" + (
        ", but not all alike often" if -16.5 < low < -13 < 13 < high < 16.5 else ""
    )
    yield "pictures are turned by up to 15° both ways, every angle alike", right, f"{hint}.\nUse v2.RandomRotation(15), for every picture."
    reach = [(int(s.min().round()), int(s.max().round()), s.std().item()) for s in (rights, downs)]
    right = all(low == -4 and high == 4 and 2.2 < spread < 3.0 for low, high, spread in reach)
    together = torch.corrcoef(torch.stack([rights, downs]))[0, 1].abs().item() if all(r[2] > 0 for r in reach) else 0
    found = f"Found: {_range(*reach[0][:2])} pixels sideways, {_range(*reach[1][:2])} down or up"
    if right and together > 0.3:
        hint = f"{found}, but the same in both directions.\nEach direction has its own draw: v2.RandomCrop(32, padding=4)."
    else:
        hint = f"{found}.\n" + ("Rotation comes before the crop. " if max(abs(low) for low, *_ in reach) == 5 else "")
        hint += "Use v2.RandomCrop(32, padding=4)."
    yield "pictures are shifted by up to 4 pixels in both directions", right and together < 0.3, hint
    if not right or upside.any():
        return

    # The same draws once more, on a picture in colours: it must be what the definition makes.
    draws = [d for d in range(DRAWS) if abs(rights[d] - rights[d].round()) < 0.3 and abs(downs[d] - downs[d].round()) < 0.3]
    if len(draws) < 0.8 * DRAWS:
        hint = (
            "Found: most shifts are no whole numbers of pixels.\nThe crop stands before the rotation, which turns the shift, too: rotation "
        )
        yield "the pixels that come in are black, and all others are those of the picture", False, hint + "first, then crop."
        return
    draws = draws[:40]
    made = outputs(_colours(), draws)
    peaks = (outputs(_dots(), draws).amax((2, 3)) + 1) / 2
    found = []
    for out, draw in zip(made, draws, strict=True):
        motion = (bool(flips[draw]), float(angles[draw]), int(rights[draw].round()), int(downs[draw].round()))
        found.append((min(_off(out, _again(_colours(), *motion, smooth)) for smooth in (False, True)), draw, out, motion))
    off, _, out, motion = max(found, key=lambda entry: entry[0])
    hint = ""
    if peaks.median() < 0.8:
        hint = "Found: small bright dots become dark: something blurs the pictures.\nLeave it out."
    elif off > OFF or sorted(entry[0] for entry in found)[len(found) // 2] > MEDIAN:
        hint = "Found: after the motions, the pixels are other ones.\n" + _pixel_advice(out, motion)
    yield "the pixels that come in are black, and all others are those of the picture", not hint, hint
    names = [type(step).__name__ for step in _steps(answer.thing)]
    order = [name for name in names if name in NAMES]
    hint = f"Found: {', '.join(order)}.\nThe text lists the order: {', '.join(NAMES)}."
    yield "the steps come in the order flip, rotation, crop, normalisation", order == sorted(order, key=NAMES.index), hint


def _steps(transform):
    """The steps of a Compose or nn.Sequential, inner ones, too; nothing for a function."""
    parts = getattr(transform, "transforms", None) or (list(transform) if isinstance(transform, torch.nn.Sequential) else [])
    return list(itertools.chain.from_iterable(_steps(part) or [part] for part in parts)) if isinstance(parts, (list, tuple)) else []


def _off(out, right):
    """Mean difference inside, where rotation leaves no doubt which pixel it is."""
    return (out - right).abs().mean().item()


def _range(low, high):
    return f"{low:+d} to {high:+d}" if low != high else f"{low:+d}"


def _kind_advice(first):
    if first is None:
        return "A function needs `return`."
    if not isinstance(first, torch.Tensor):
        return "Start with v2.ToImage() and v2.ToDtype(torch.float32, scale=True): they make a tensor of floats."
    if not first.is_floating_point():
        return "v2.ToImage() gives whole numbers, v2.ToDtype(torch.float32, scale=True) makes floats of them."
    if first.dim() != 3:
        return "It is called with one picture and returns one: three dimensions, (colours, height, width)."
    if first.shape[0] != 3:
        return "Three colours come first: (3, height, width), as v2.ToImage() makes it."
    if first.dtype != torch.float32:
        return "Use torch.float32."
    return "The crop gives 32×32 pixels: v2.RandomCrop(32, padding=4)."


def _colour_advice(three, all_of_them):
    """three: what white, black and a red became."""
    white, black, red = three
    found = f"Found: white becomes {_list(white)}, black {_list(black)}, the colour (204, 51, 102) {_list(red)}; expected "
    found += "1, −1, (0.6, −0.6, −0.2).\n"
    if (all_of_them.view(3, 5, 3).std(1) > 0.02).any():
        return found + "It changes from call to call: no step here changes colours at random."
    if white.max() > 100:
        return found + "Is scale=True set in ToDtype, so that 255 becomes 1? Normalize expects numbers from 0 to 1."
    if abs(white[0] - 1) < 0.02 and abs(black[0]) < 0.02:
        return found + "Normalize is missing: mean 0.5 and std 0.5 for each of the three colours."
    if (white - white[0]).abs().max() > 0.02:
        return found + "Every colour has another mean or std (those of ImageNet?): here all have mean 0.5 and std 0.5."
    if abs(white[0] - 1) < 0.02 and abs(black[0] + 1) < 0.02:
        return found + (
            "The colours are averaged (grayscale)." if (red - red[0]).abs().max() < 0.02 else "The colours are in another order."
        )
    if abs(white[0] - 0.5) < 0.02:
        return found + "The mean is subtracted, but not divided by the standard deviation, 0.5."
    return found + "Normalize once, with mean 0.5 and std 0.5: (x − 0.5) / 0.5."


def _list(colour):
    values = [round(value, 2) for value in colour.tolist()]
    return f"{values[0]:g}" if len(set(values)) == 1 else f"({', '.join(f'{v:g}' for v in values)})"


def _pixel_advice(out, motion):
    flipped, angle, right, down = motion
    if any(_off(out, _again(_colours(), *motion, smooth, crop_first=True)) < OFF for smooth in (False, True)):
        return "The crop stands before the rotation: rotation first, then crop."
    sides = [out[:, :down] if down > 0 else out[:, down:] if down < 0 else out[:, :, :right] if right > 0 else out[:, :, right:]]
    if (down or right) and sides[0].max() > -0.95:
        return f"The edges that come in reach {sides[0].max():.2g}; black is −1. Leave the transforms' fill and padding_mode as they are."
    return "Some other step changes pixels (erasing, blurring, jitter), or the corners that come in by the rotation are not black (fill)."
