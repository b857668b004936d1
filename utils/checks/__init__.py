"""What the answer to each exercise must satisfy: one function for each exercise.

Every function takes an answer, prints what holds (✓) and what doesn't (✗, with a hint), never raises, and returns whether all is well;
hint(name) gives the next hint, progress() lists what is solved, reset(name) forgets one. In notebooks, solution(name) marks the project's
solution, and use(name) gives what the notebook goes on with. The project's own networks are tested with the same functions. How a check
is written: framework.py.
"""

from . import progress as _file  # noqa: F401 – the module first: its name is then that of the function
from .framework import hint, progress, reset, solution, use  # noqa: F401 – no exercises
from .notebook01 import batch_norm, cnn, dropout
from .notebook01_epoch import epoch
from .notebook01_transform import train_transform
from .notebook02 import residual_block, zero_padding
from .notebook03 import make_layer, resnet25
from .notebook04 import make_stage, resnet
from .notebook04_blocks import basic_block, bottleneck
from .notebook05 import preact_block, preact_bottleneck
from .notebook06 import paper_depth, plain_block
from .notebook08 import inception_block, make_identity, resnext_block
from .notebook10 import orthogonalise, whitening

__all__ = [
    "basic_block", "batch_norm", "bottleneck", "cnn", "dropout", "epoch", "inception_block", "make_identity", "make_layer", "make_stage",
    "orthogonalise", "paper_depth", "plain_block", "preact_block", "preact_bottleneck", "residual_block", "resnet", "resnet25", "resnext_block",
    "train_transform", "whitening", "zero_padding",
]  # fmt: skip
