"""The instruments of `utils/instruments.py`, applied to a program of the lab. Each builds its own copies, from the program's seed."""

import copy
import functools
import itertools

import torch

from .. import instruments
from .bench import alone

COST = {}  # instrument: minutes of work
_measures = {}


def measure(minutes):
    """Register an instrument: its function gets a Program, and gives a Reading."""

    def register(function):
        @functools.wraps(function)
        def seeded(program, **options):
            with alone(program.seed):
                return function(program, **options)

        COST[function.__name__], _measures[function.__name__] = minutes, seeded
        return seeded

    return register


def apply(name, program, **options):
    return _measures[name](program, **options)


def doc(name):
    """One line that says what the instrument looks at."""
    return _measures[name].__doc__


@measure(1)
def first_loss(program):
    """What the program reports of an untrained network."""
    model, loader = program.network(), program.loader("val")
    return instruments.first_loss(lambda: program.evaluate(model, loader), len(program.images.classes))


@measure(2)
def look_at_images(program, draw=True):
    """Training and validation images as they leave their loaders, twice each."""
    loaders = {"training": program.loader("train"), "validation": program.loader("val")}
    return instruments.look_at_images(loaders, draw=draw)


@measure(2)
def look_at_labels(program, draw=True):
    """Training images with their labels."""
    return instruments.look_at_labels(program.loader("train"), program.images.classes, draw=draw)


@measure(2)
def shape_trace(program):
    """Every layer of the network, on four training images."""
    return instruments.shape_trace(program.network(), _batch(program)[0][:4])


@measure(3)
def overfit_one_batch(program):
    """100 steps on eight images."""
    model = program.network()
    return instruments.overfit_one_batch(model, program.step(model, 100), *(part[:8] for part in _batch(program)), steps=100)


@measure(3)
def gradient_norms(program):
    """After 10 steps of training."""
    model = program.network()
    batches = _batches(program, 10)
    return instruments.gradient_norms(model, program.step(model, len(batches)), batches)


@measure(2)
def weights_moved(program):
    """By 10 steps of training."""
    model = program.network()
    step = program.step(model, 10)
    return instruments.weights_moved(model, lambda: [step(*batch) for batch in _batches(program, 10)])


@measure(4)
def update_ratios(program):
    """Over a run of 3 epochs of a quarter of the images."""
    model, program = program.network(), program.short()
    return instruments.update_ratios(model, lambda: program.fit(model, *program.loaders().values(), epochs=3))


@measure(5)
def input_baseline(program):
    """Two runs of 3 epochs: one with the images, one with blank ones."""

    def train(batches):
        torch.manual_seed(program.seed)
        model = program.network()
        program.fit(model, batches, [batches[0]], [batches[0]], epochs=3)
        return model

    return instruments.input_baseline(train, list(program.loader("train")), list(program.loader("val")))


@measure(2)
def batch_sizes(program):
    """The network after 10 steps, evaluated on the validation images."""
    model = _trained(program)
    return instruments.batch_sizes(lambda size: program.evaluate(copy.deepcopy(model), program.loader("val", size)))


@measure(2)
def dependence(program):
    """The network after 10 steps, on a batch of 16 validation images."""
    model, batch = _trained(program), next(iter(program.loader("val", 16)))
    return instruments.dependence(model, lambda images: program.evaluate(model, [(images, batch[1])]), batch[0].clone())


@measure(4)
def data_use(program):
    """Over a run of 3 epochs of a quarter of the images."""
    program = program.short()
    return instruments.data_use(lambda *loaders: program.fit(program.network(), *loaders, epochs=3), program.loaders())


def _batches(program, count):
    return list(itertools.islice(program.loader("train"), count))


def _batch(program):
    return _batches(program, 1)[0]


def _trained(program):
    model = program.network()
    step = program.step(model, 10)
    for batch in _batches(program, 10):
        step(*batch)
    return model
