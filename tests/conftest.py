"""For all tests: a learner's progress stays as it is, and an error of a check's own code is an error."""

import os

import pytest

os.environ["RESNET_PROGRESS"] = "off"
os.environ["RESNET_CHECKS_RAISE"] = "1"


@pytest.hookimpl(tryfirst=True)  # before -m picks
def pytest_collection_modifyitems(items):
    """Notebook 11 starts processes, so its cells are slow tests."""
    for item in items:
        if item.path.name.startswith("11_"):
            item.add_marker("slow")
