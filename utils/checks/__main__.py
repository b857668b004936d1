"""`python -m utils.checks`: which exercises of all notebooks are solved; what `make progress` calls."""

from .framework import overview

overview()
