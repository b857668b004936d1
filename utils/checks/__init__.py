"""What the answer to each exercise must satisfy: one function for each exercise.

Every function takes an answer, prints what holds (✓) and what doesn't (✗, with a hint), never raises, and returns whether all is well;
hint(name) gives the next hint, progress() lists what is solved, reset(name) forgets one. In notebooks, solution(name) marks the project's
solution, and use(name) gives what the notebook goes on with. The project's own networks are tested with the same functions. How a check
is written: framework.py.
"""

from . import progress as _file  # noqa: F401 – the module first: its name is then that of the function
from .framework import EXERCISES, hint, progress, reset, solution, use  # noqa: F401 – no exercises
from .matching import take_weights  # noqa: F401
from .notebook01 import batch_norm, cnn, dropout  # noqa: F401
from .notebook01_epoch import epoch  # noqa: F401
from .notebook01_norm import normalise  # noqa: F401
from .notebook01_transform import train_transform  # noqa: F401
from .notebook02 import residual_block, zero_padding  # noqa: F401
from .notebook03 import make_layer, resnet25  # noqa: F401
from .notebook04 import make_stage, resnet  # noqa: F401
from .notebook04_blocks import bottleneck  # noqa: F401
from .notebook05 import path_weights, preact_block, preact_bottleneck  # noqa: F401
from .notebook06 import paper_depth, plain_block, plain_identity  # noqa: F401
from .notebook08 import inception_block, inception_shortcut, make_identity, resnext_block  # noqa: F401
from .notebook09 import filter_normalised, grad_cam, skip_block  # noqa: F401
from .notebook10 import orthogonalise, whitening  # noqa: F401
from .notebook11 import average_gradients, shard  # noqa: F401

__all__ = sorted(EXERCISES)
