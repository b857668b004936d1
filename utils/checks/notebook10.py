"""Checks of notebook 10: whitening filters from patches, and Newton–Schulz."""

import torch
import torch.nn.functional as F

from .. import fast
from .framework import exercise, in_turn

# ---- whitening ------------------------------------------------------------------------------------------------------


def _patches(images, size):
    return F.unfold(images, size).transpose(1, 2).reshape(-1, images.shape[1] * size**2)


def _filters(
    images, size, eps, patches=_patches, average=len, divide=lambda values, eps: 1 / (values + eps).sqrt(), turn=None, layout=None
):
    """The right filters, or those of a mistake: what takes the patches, what is averaged over, what the vectors are multiplied with."""
    rows = patches(images, size)
    values, vectors = torch.linalg.eigh((rows.T @ rows / average(rows)).double())
    vectors = vectors.T if turn == "rows" else vectors
    filters = (vectors * divide(values, eps)).T.float()
    if layout == "colours last":
        filters = filters.view(-1, size, size, images.shape[1]).permute(0, 3, 1, 2)
    filters = filters.reshape(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters])


def _centred(images, size):
    rows = _patches(images, size)
    return rows - rows.mean(0)


WHITENING = [
    ("The vectors are multiplied with the roots of their values: divide by them, so that large directions become small.",
     {"divide": lambda values, eps: (values + eps).sqrt()}),
    ("The vectors are divided by their values: divide by the *square root* of value + eps.", {"divide": lambda values, eps: 1 / (values + eps)}),
    ("The vectors are divided by the fourth root: one square root is enough.", {"divide": lambda values, eps: (values + eps) ** -0.25}),
    ("The vectors aren't divided by anything: each by the square root of its value + eps.", {"divide": lambda values, eps: torch.ones_like(values)}),
    ("eps stands outside of the square root, or isn't used: it is sqrt(value + eps).", {"divide": lambda values, eps: 1 / (values.clamp(min=0).sqrt() + eps)}),
    ("eps isn't used: divide by sqrt(value + eps).", {"divide": lambda values, eps: values**-0.5}),
    ("eps isn't the argument: 1e-4 is only its default.", {"divide": lambda values, eps: (values + 1e-4) ** -0.5}),
    ("The rows of `vectors` are taken: torch.linalg.eigh gives the vectors as *columns*. Transpose them.",
     {"turn": "rows", "divide": lambda values, eps: 1 / (values + eps).sqrt()}),
    ("The patches are mixed up: F.unfold gives (N, C·size², positions). Put the positions before the numbers by transpose(1, 2), then reshape.",
     {"patches": lambda images, size: F.unfold(images, size).reshape(-1, images.shape[1] * size**2)}),
    ("The sum isn't divided: the second moments are a mean, so divide by the number of patches.", {"average": lambda rows: 1}),
    ("The numbers of a filter are in another order than those of a patch: F.unfold puts the colours first, so a filter is (C, size, size).",
     {"layout": "colours last"}),
    ("The patches overlap: take them at every position, not side by side.",
     {"patches": lambda images, size: F.unfold(images, size, stride=size).transpose(1, 2).reshape(-1, images.shape[1] * size**2)}),
    ("The patches reach over the border: F.unfold without padding.",
     {"patches": lambda images, size: F.unfold(images, size, padding=1).transpose(1, 2).reshape(-1, images.shape[1] * size**2)}),
]  # fmt: skip


def _form(filters):
    """What is the same for filters in another order or with other signs."""
    rows = filters.double().reshape(len(filters), -1)
    return rows.T @ rows


def _near(a, b, tolerance=0.02):
    """Whether a is b, but for rounding; never, where b has grown beyond all bounds."""
    return bool(a.shape == b.shape and torch.isfinite(a).all() and b.norm() < 1e6 and (a - b).norm() <= tolerance * b.norm())


def _whitening_mistake(out, images, size, eps):
    for hint, options in WHITENING:
        other = _filters(images, size, eps, **options)
        # without signs: the eigenvectors have any, which shows where their rows are taken
        if torch.isfinite(other).all() and _near(_form(out).abs(), _form(other).abs(), 1e-3):
            return hint
    rows = _filters(images, size, eps, average=lambda rows: len(images))
    if _near(_form(out), _form(rows), 1e-3):
        return "The sum is divided by the number of images: divide by the number of *patches*, of which each image has many."
    if not torch.isfinite(out).all():
        return "Some numbers are infinite or NaN: eps isn't used. A direction in which nothing varies has the value 0; divide by sqrt(value + eps)."
    return "Each filter is an eigenvector of patches.T @ patches / len(patches), divided by sqrt(value + eps)."


def _some_images():
    """(images, size, eps): random ones whose neighbours are alike; other sizes; grey ones, in which most directions are empty."""
    for shape, size, eps, grey in (((40, 3, 12, 12), 2, 1e-4, False), ((40, 3, 10, 9), 3, 0.05, False), ((30, 1, 12, 8), 2, 0.2, False),
                                   ((20, 3, 8, 8), 2, 1e-3, True)):  # fmt: skip
        images = F.avg_pool2d(torch.randn(shape[0], 1 if grey else shape[1], shape[2] + 2, shape[3] + 2), 3, 1) * 2
        images = images * torch.linspace(1, 0.5, images.shape[1])[:, None, None] + torch.linspace(0.2, -0.4, images.shape[1])[:, None, None]
        yield images.expand(shape).contiguous(), size, eps


@exercise(
    "10.1",
    "whitening",
    finished=lambda: fast.whitening,
    ladder=[
        "patches = F.unfold(images, size).transpose(1, 2).reshape(-1, images.shape[1] * size**2)",
        "values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches)); the vectors are the columns.",
        "filters = (vectors / (values + eps).sqrt()).T.reshape(-1, images.shape[1], size, size); then torch.cat([filters, -filters]).",
    ],
)
def whitening(answer):
    """function(images, size=2, eps=1e-4): filters (2·C·size², C, size, size) whose outputs are uncorrelated and of variance 1."""
    hints = {}
    for images, size, eps in _some_images():
        n, c, *_ = images.shape
        call = f"whitening(images, {size}, {eps:g}) with images of shape {tuple(images.shape)}"
        given, count = images.clone(), c * size**2
        out = answer.run(answer.thing, given, size, eps, doing=call)
        if out is None:
            hints = {"return": "Found: it returns None.\nIts last line needs `return`."}
        elif not isinstance(out, torch.Tensor):
            hints = {"return": f"Found: it returns a {type(out).__name__}.\nReturn one tensor."}
        elif not torch.equal(given, images):
            hints = {"input": "Found: the images have other numbers after the call.\nMake new tensors, don't write into them."}
        elif out.shape != (2 * count, c, size, size):
            cause = "The filters with the other sign are missing: torch.cat([filters, -filters])." if len(out) == count else ""
            cause = cause or "A filter has the shape (C, size, size), and there are two of them for each of C·size² directions."
            hints = {"shape": f"Found: {call} gives {tuple(out.shape)}; expected {(2 * count, c, size, size)}.\n{cause}"}
        else:
            out, right = out.detach().float(), _filters(images, size, eps)
            centred = _filters(images, size, eps, patches=_centred)
            flat = out.reshape(2 * count, -1)
            signed = all((flat + row).abs().amax(1).min() <= 1e-3 * flat.abs().max() for row in flat)
            if not (_near(_form(out), _form(right)) or _near(_form(out), _form(centred))):
                hints = {
                    "moments": f"Found: {call} gives filters of other directions or lengths.\n{_whitening_mistake(out, images, size, eps)}"
                }
            elif not signed:
                hints = {
                    "signs": "Found: not every filter is there with both signs.\nJoin the filters and their negatives: torch.cat([filters, -filters])."
                }
            elif not _alone(flat):
                text = "They are mixtures of the eigenvectors, such as V D V.T: each filter is one eigenvector, (vectors / roots).T."
                hints = {"alone": f"Found: filters that aren't at right angles to each other.\n{text}"}
        if hints:
            break
    claims = {
        "return": "it returns a tensor",
        "input": "the images are left as they were",
        "shape": "2·C·size² filters of the shape (C, size, size), for four choices of arguments",
        "moments": "what they make of the images is uncorrelated, with variance value / (value + eps)",
        "signs": "each filter is there with both signs",
        "alone": "each filter is one eigenvector",
    }
    yield from in_turn(claims, hints)


def _alone(flat):
    """Whether filters are at right angles to each other, or the opposite of each other."""
    unit = F.normalize(flat.double(), dim=1)
    cosine = (unit @ unit.T).abs()
    return bool(((cosine < 0.05) | (cosine > 0.95)).all())


# ---- Newton–Schulz --------------------------------------------------------------------------------------------------


def _schulz(matrix, steps, norm=lambda x: x.norm() + 1e-7, coefficients=fast.COEFFICIENTS, square=torch.matmul, each=False, back=False):
    """The right iteration, or that of a mistake."""
    a, b, c = coefficients
    x = matrix / norm(matrix)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * square(gram, gram)) @ x
        x = x / norm(x) if each else x
    return x * norm(matrix) if back else x


A, B, C = fast.COEFFICIENTS
SCHULZ = [
    ("The matrix isn't divided by its norm at first: the polynomial keeps singular values in bounds only if none is above 1.",
     {"norm": lambda x: 1}),
    ("Each row is divided by its own length: divide the whole matrix by its norm, x.norm().", {"norm": lambda x: x.norm(dim=1, keepdim=True) + 1e-7}),
    ("Each column is divided by its own length: divide the whole matrix by its norm, x.norm().", {"norm": lambda x: x.norm(dim=0, keepdim=True) + 1e-7}),
    ("The matrix is divided by its largest number, which its singular values can exceed: divide by its norm.", {"norm": lambda x: x.abs().max()}),
    ("The matrix is divided by the square of its norm.", {"norm": lambda x: x.norm() ** 2}),
    ("The Gram matrix is squared number by number: (XXᵀ)² is the matrix product, gram @ gram.", {"square": torch.mul}),
    ("The last term is c·XXᵀX: it needs the square of XXᵀ, gram @ gram.", {"square": lambda g, h: g}),
    ("The term a·X is missing.", {"coefficients": (0, B, C)}),
    ("The term with c is missing: c·(XXᵀ)²X.", {"coefficients": (A, B, 0)}),
    ("The term with b is missing: b·XXᵀX.", {"coefficients": (A, 0, C)}),
    ("b and c are exchanged.", {"coefficients": (A, C, B)}),
    ("a and c are exchanged.", {"coefficients": (C, B, A)}),
    ("b has the wrong sign: it is negative already, so the term is added.", {"coefficients": (A, -B, C)}),
    ("c is subtracted: all three terms are added.", {"coefficients": (A, B, -C)}),
    ("That is the cubic polynomial, 1.5x − 0.5x³: right, but slow. Use the three coefficients that are given.", {"coefficients": (1.5, -0.5, 0)}),
    ("That is the classical quintic polynomial, which is right but slow. Use the three coefficients that are given.", {"coefficients": (15 / 8, -10 / 8, 3 / 8)}),
    ("The matrix is divided by its norm in every step: once, before the first, is enough.", {"each": True}),
    ("The result is multiplied with the norm again: leave its singular values near 1.", {"back": True}),
]  # fmt: skip


def _schulz_mistake(out, matrix, steps):
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    if _near(out, u @ v, 1e-3):
        return "That is the exact result, U Vᵀ, as from an SVD: right, but slow on a GPU. Use matrix products alone, `steps` times."
    for hint, options in SCHULZ:
        other = _schulz(matrix, steps, **options)
        if torch.isfinite(other).all() and _near(out, other, 1e-3):
            return hint
    for number in range(12):
        if number != steps and _near(out, _schulz(matrix, number), 1e-3):
            return f"That is the result of {number} steps: {steps} {'is' if steps == 1 else 'are'} asked for."
    if not torch.isfinite(out).all():
        return "Its numbers have grown beyond all bounds: was the matrix divided by its norm before the first step?"
    return "Each step: gram = x @ x.T, then x = a * x + (b * gram + c * gram @ gram) @ x."


@exercise(
    "10.2",
    "orthogonalise",
    finished=lambda: fast.orthogonalise,
    causes=[(r"mat1 and mat2 shapes|size mismatch|size of tensor a", "XXᵀ is x @ x.T; it multiplies x from the left: (…) @ x.")],
    ladder=[
        "First x = matrix / (matrix.norm() + 1e-7); then `steps` times the polynomial.",
        "gram = x @ x.T\nx = a * x + (b * gram + c * gram @ gram) @ x",
    ],
)
def orthogonalise(answer):
    """function(matrix, steps=5): Newton–Schulz with the coefficients 3.4445, -4.7750, 2.0315."""
    hints = {}
    for shape, steps, scale in (((8, 20), 1, 1.0), ((5, 12), 3, 1.0), ((6, 6), 5, 30.0), ((24, 9), 5, 1e-3), ((7, 16), 5, 2.0)):
        matrix = torch.randn(shape) * scale
        given, right = matrix.clone(), _schulz(matrix, steps)
        call = f"orthogonalise(matrix, {steps}) with a matrix of shape {shape}"
        out = answer.run(answer.thing, given, steps, doing=call)
        if out is None:
            hints = {"return": "Found: it returns None.\nIts last line needs `return`."}
        elif not isinstance(out, torch.Tensor):
            hints = {"return": f"Found: it returns a {type(out).__name__}.\nReturn one tensor."}
        elif not torch.equal(given, matrix):
            hints = {
                "input": "Found: the matrix itself has other numbers after the call.\nIt is a gradient's average, which the next step needs: make a new tensor."
            }
        elif out.shape != matrix.shape:
            turned = out.shape == matrix.T.shape
            cause = (
                "A matrix that was transposed before the steps must be transposed again after them."
                if turned
                else "Rows and columns stay as they are."
            )
            hints = {"shape": f"Found: {call} gives the shape {tuple(out.shape)}.\n{cause}"}
        else:
            out = out.detach().to(matrix.dtype)
            if not _near(out, right) and not _near(out, _schulz(matrix, steps, norm=lambda x: torch.linalg.matrix_norm(x, 2))):
                found = torch.linalg.svdvals(out) if torch.isfinite(out).all() else None
                values = "infinite or NaN" if found is None else f"from {found[-1]:.3g} to {found[0]:.3g}"
                expected = torch.linalg.svdvals(right)
                hints = {
                    "values": f"Found: {call} has singular values {values}; expected {expected[-1]:.3g} to {expected[0]:.3g}.\n"
                    + _schulz_mistake(out, matrix, steps)
                }
        if hints:
            break
    claims = {
        "return": "it returns a tensor",
        "input": "the matrix itself is left as it was",
        "shape": "the shape stays, for wide, square and tall matrices",
        "values": "singular values and vectors are those of Newton–Schulz, for large and small matrices and 1, 3 and 5 steps",
    }
    if not (yield from in_turn(claims, hints)):
        return
    zeros = answer.run(answer.thing, torch.zeros(4, 6), 5, doing="orthogonalise(torch.zeros(4, 6), 5)")
    found = "Found: NaN.\nA layer may get no gradient: divide by the norm plus something tiny, such as 1e-7."
    yield "zeros stay zeros", isinstance(zeros, torch.Tensor) and bool((zeros == 0).all()), found
