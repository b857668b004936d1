"""Right and wrong answers to the exercises of notebook 10."""

import numpy as np
import torch
import torch.nn.functional as F

from utils import checks, fast

# ---- whitening ------------------------------------------------------------------------------------------------------


def taught(images, size=2, eps=1e-4):
    patches = F.unfold(images, size).transpose(1, 2).reshape(-1, images.shape[1] * size**2)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + eps).sqrt()).T.reshape(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters])


def by_unfold_method(images, size=2, eps=1e-4):
    patches = images.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    values, vectors = torch.linalg.eigh((patches[:, :, None] * patches[:, None]).mean(0))
    filters = (vectors * (values + eps) ** -0.5).mT.unflatten(1, (-1, size, size)).flip(0)
    return torch.stack([filters, -filters], 1).flatten(0, 1)


def by_svd(images, size=2, eps=1e-4):
    patches = F.unfold(images, size).transpose(1, 2).flatten(0, 1)
    _, s, vt = torch.linalg.svd(patches / len(patches) ** 0.5, full_matrices=False)
    filters = (vt / (s[:, None] ** 2 + eps).sqrt()).reshape(-1, images.shape[1], size, size)
    return torch.cat((-filters, filters))


def covariance(images, size=2, eps=1e-4):
    patches = F.unfold(images, size).transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(patches))
    filters = [vectors[:, i] / torch.sqrt(values[i] + eps) for i in range(len(values))]
    filters = torch.stack(filters).view(-1, images.shape[1], size, size)
    return torch.cat([filters, filters * -1])


def with_numpy(images, size=2, eps=1e-4):
    patches = F.unfold(images, size).transpose(1, 2).reshape(-1, images.shape[1] * size**2).double().numpy()
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = torch.tensor((vectors / np.sqrt(values + eps)).T).view(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters]).float()


def whitening_with(patches=None, average=None, after=None, divide=None, turn=None, shape=None):
    """The answer as taught, with a mistake."""

    def answer(images, size=2, eps=1e-4):
        channels = images.shape[1]
        rows = patches(images, size) if patches else F.unfold(images, size).transpose(1, 2).reshape(-1, channels * size**2)
        values, vectors = torch.linalg.eigh(rows.T @ rows / (average(images, rows) if average else len(rows)))
        vectors = turn(vectors) if turn else vectors
        filters = vectors * (divide(values, eps) if divide else (values + eps) ** -0.5)
        filters = shape(filters.T, channels, size) if shape else filters.T.reshape(-1, channels, size, size)
        return after(filters) if after else torch.cat([filters, -filters])

    return answer


def zca(images, size=2, eps=1e-4):
    patches = F.unfold(images, size).transpose(1, 2).reshape(-1, images.shape[1] * size**2)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors @ torch.diag((values + eps) ** -0.5) @ vectors.T).reshape(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters])


def overwrites(images, size=2, eps=1e-4):
    images -= images.mean((0, 2, 3), keepdim=True)
    return taught(images, size, eps)


RIGHT_WHITENING = {
    "as taught": taught, "by the method unfold, interleaved": by_unfold_method, "by an SVD of the patches": by_svd,
    "covariance": covariance, "numpy": with_numpy, "the project's": fast.whitening,
}  # fmt: skip
WRONG_WHITENING = {
    "multiplied": (whitening_with(divide=lambda v, eps: (v + eps) ** 0.5), "multiplied with the roots"),
    "divided by the value": (whitening_with(divide=lambda v, eps: 1 / (v + eps)), "*square root*"),
    "not divided": (whitening_with(divide=lambda v, eps: torch.ones_like(v)), "aren't divided by anything"),
    "eps outside": (whitening_with(divide=lambda v, eps: 1 / (v.clamp(min=0).sqrt() + eps)), "eps stands outside"),
    "eps fixed": (whitening_with(divide=lambda v, eps: (v + 1e-4) ** -0.5), "eps isn't the argument"),
    "no eps": (whitening_with(divide=lambda v, eps: v**-0.5), "eps isn't used"),
    "rows": (whitening_with(turn=lambda vectors: vectors.T), "as *columns*"),
    "mixed": (whitening_with(patches=lambda x, size: F.unfold(x, size).reshape(-1, x.shape[1] * size**2)), "mixed up"),
    "sum": (whitening_with(average=lambda images, rows: 1), "The sum isn't divided"),
    "by the images": (whitening_with(average=lambda images, rows: len(images)), "divide by the number of *patches*"),
    "colours last": (
        whitening_with(shape=lambda f, c, size: f.reshape(-1, size, size, c).permute(0, 3, 1, 2)), "F.unfold puts the colours first"
    ),
    "side by side": (
        whitening_with(patches=lambda x, s: F.unfold(x, s, stride=s).transpose(1, 2).reshape(-1, x.shape[1] * s**2)), "at every position"
    ),
    "padded": (
        whitening_with(patches=lambda x, s: F.unfold(x, s, padding=1).transpose(1, 2).reshape(-1, x.shape[1] * s**2)), "over the border"
    ),
    "one sign": (whitening_with(after=lambda f: f), "with the other sign are missing"),
    "twice the same": (whitening_with(after=lambda f: torch.cat([f, f])), "not every filter is there with both signs"),
    "flat": (whitening_with(after=lambda f: torch.cat([f, -f]).flatten(1)), "A filter has the shape (C, size, size)"),
    "ZCA": (zca, "mixtures of the eigenvectors"),
    "overwrites": (overwrites, "other numbers after the call"),
    "nothing": (lambda images, size=2, eps=1e-4: None, "Its last line needs `return`"),
    "two": (lambda images, size=2, eps=1e-4: torch.linalg.eigh(torch.eye(3)), "Return one tensor"),
}  # fmt: skip

# ---- Newton–Schulz --------------------------------------------------------------------------------------------------

A, B, C = 3.4445, -4.7750, 2.0315


def iterate(norm=lambda x: x.norm() + 1e-7, coefficients=(A, B, C), square=lambda g: g @ g, after=lambda x: x, steps_are=None, end=None):
    """The iteration as taught, with a mistake."""

    def answer(matrix, steps=5):
        a, b, c = coefficients
        x = matrix / norm(matrix)
        for _ in range(steps if steps_are is None else steps_are(steps)):
            gram = x @ x.T
            x = after(a * x + (b * gram + c * square(gram)) @ x)
        return end(x, matrix) if end else x

    return answer


def from_the_right(matrix, steps=5):
    x = matrix.clone() / (torch.linalg.norm(matrix) + 1e-8)
    for _ in range(steps):
        gram = x.T.mm(x)
        x = x @ (A * torch.eye(len(gram)) + B * gram + C * gram.mm(gram))
    return x


def on_values(matrix, steps=5):
    """By what it does to singular values."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (s.square().sum().sqrt() + 1e-7)
    for _ in range(steps):
        s = A * s + B * s**3 + C * s**5
    return u * s @ vt


def recursive(matrix, steps=5, first=True):
    if first:
        return recursive(torch.nn.functional.normalize(matrix.flatten(), dim=0).view_as(matrix), steps, False)
    if steps == 0:
        return matrix
    gram = matrix @ matrix.mT
    return recursive(torch.addmm(matrix, B * gram + C * gram @ gram, matrix, beta=A), steps - 1, False)


def in_double(matrix, steps=5):
    return fast.orthogonalise(matrix.double(), steps).float()


def overwrites_matrix(matrix, steps=5):
    matrix /= matrix.norm() + 1e-7
    return fast.orthogonalise(matrix, steps)


def not_back(matrix, steps=5):
    return fast.orthogonalise(matrix.T if matrix.shape[0] > matrix.shape[1] else matrix, steps)


def by_an_svd(matrix, steps=5):
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


RIGHT_SCHULZ = {
    "as taught": iterate(), "from the right": from_the_right, "on singular values": on_values, "recursive": recursive,
    "in double": in_double, "by the spectral norm": iterate(norm=lambda x: torch.linalg.matrix_norm(x, 2) + 1e-7),
    "the project's": fast.orthogonalise,
}  # fmt: skip
WRONG_SCHULZ = {
    "no norm": (iterate(norm=lambda x: 1), "isn't divided by its norm"),
    "rows": (iterate(norm=lambda x: x.norm(dim=1, keepdim=True) + 1e-7), "Each row is divided by its own length"),
    "columns": (iterate(norm=lambda x: x.norm(dim=0, keepdim=True) + 1e-7), "Each column is divided"),
    "squared norm": (iterate(norm=lambda x: x.norm() ** 2 + 1e-7), "the square of its norm"),
    "number by number": (iterate(square=lambda g: g**2), "number by number"),
    "not squared": (iterate(square=lambda g: g), "it needs the square of XXᵀ"),
    "no a": (iterate(coefficients=(0, B, C)), "The term a·X is missing"),
    "no b": (iterate(coefficients=(A, 0, C)), "The term with b is missing"),
    "no c": (iterate(coefficients=(A, B, 0)), "The term with c is missing"),
    "exchanged": (iterate(coefficients=(A, C, B)), "b and c are exchanged"),
    "wrong sign": (iterate(coefficients=(A, -B, C)), "b has the wrong sign"),
    "cubic": (iterate(coefficients=(1.5, -0.5, 0)), "the cubic polynomial"),
    "in every step": (iterate(after=lambda x: x / (x.norm() + 1e-7)), "in every step"),
    "long again": (iterate(end=lambda x, matrix: x * matrix.norm()), "multiplied with the norm again"),
    "always 5": (iterate(steps_are=lambda steps: 5), "That is the result of 5 steps: 1 is asked for"),
    "one more": (iterate(steps_are=lambda steps: steps + 1), "That is the result of 2 steps"),
    "SVD": (by_an_svd, "as from an SVD"),
    "not transposed back": (not_back, "must be transposed again"),
    "overwrites": (overwrites_matrix, "It is a gradient's average"),
    "NaN for zeros": (iterate(norm=lambda x: x.norm()), "A layer may get no gradient"),
    "nothing": (lambda matrix, steps=5: None, "Its last line needs `return`"),
    "a list": (lambda matrix, steps=5: matrix.tolist(), "returns a list"),
}  # fmt: skip

EXERCISES = {checks.whitening: (RIGHT_WHITENING, WRONG_WHITENING), checks.orthogonalise: (RIGHT_SCHULZ, WRONG_SCHULZ)}
