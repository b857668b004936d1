"""What the answer to each exercise must satisfy: one function for each exercise.

Every function takes an answer, prints a list of ✓ and ✗ with what was found and, asked again, a hint at each likely mistake, never
raises, and returns whether all is well; `progress()` lists what is solved. The project's own networks are tested with the same functions.
"""

from . import progress as _file  # noqa: F401 – the module first: its name is then that of the function
from .framework import progress  # noqa: F401 – not an exercise
from .notebook01 import batch_norm, cnn, dropout, epoch, train_transform
from .notebook02 import residual_block, zero_padding
from .notebook03 import make_layer, resnet25
from .notebook04 import basic_block, bottleneck, make_stage, resnet
from .notebook05 import preact_block, preact_bottleneck
from .notebook06 import paper_depth, plain_block
from .notebook08 import inception_block, make_identity, resnext_block

__all__ = [
    "basic_block", "batch_norm", "bottleneck", "cnn", "dropout", "epoch", "inception_block", "make_identity", "make_layer", "make_stage",
    "paper_depth", "plain_block", "preact_block", "preact_bottleneck", "residual_block", "resnet", "resnet25", "resnext_block",
    "train_transform", "zero_padding",
]  # fmt: skip
