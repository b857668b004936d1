"""Notebook 07: the evidence tells each fault from the right code, for several seeds."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "07_break_it.ipynb"
CELLS = {cell.id: cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
FAULTS = [name.removesuffix("-fault") for name in CELLS if name.endswith("-fault")]


def test_every_fault_has_its_code_its_evidence_and_a_hidden_mend():
    assert len(FAULTS) >= 10
    for fault in FAULTS:
        assert "*Predict:*" in CELLS[fault].source and CELLS[f"{fault}-moral"].source
        mended = CELLS[f"{fault}-mended"]
        assert "passed = " in CELLS[f"{fault}-evidence"].source
        assert mended.source.startswith("# Solution – click to show\n") and mended.metadata.jupyter.source_hidden
        assert " if passed else " in mended.source


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_evidence_tells_each_fault_from_the_mended_code(seed, monkeypatch, capsys):
    monkeypatch.setenv("RESNET_BUDGET", "smoke")
    monkeypatch.setenv("RESNET_DATA", "synthetic")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    scope = {}
    for name, cell in CELLS.items():
        if cell.cell_type == "code":
            exec(cell.source.replace("SEED = 0", f"SEED = {seed}"), scope)
            if name.endswith("-mended"):
                fault, (_, passed, mended_passes) = list(scope["verdicts"].items())[-1]
                assert passed is False and mended_passes is True, f"{fault}\n{capsys.readouterr().out}"
    assert len(scope["verdicts"]) == len(FAULTS)


def test_mended_in_its_place_the_evidence_passes(monkeypatch):
    """What a learner does: the code in the fault's cell is right, and the evidence is asked."""
    monkeypatch.setenv("RESNET_BUDGET", "smoke")
    monkeypatch.setenv("RESNET_DATA", "synthetic")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    scope = {}
    for name, cell in CELLS.items():
        fault, _, part = name.rpartition("-")
        if cell.cell_type != "code" or fault in FAULTS and part == "fault":
            continue
        if part == "evidence":
            definition, _, fallback = CELLS[f"{fault}-mended"].source.partition(" if passed else ")
            name_in_cell = definition.splitlines()[-1].split(" = ")[0]
            exec("\n".join(definition.splitlines()[:-1]), scope)
            scope[name_in_cell] = scope[fallback.splitlines()[0]]
            exec(cell.source, scope)
            assert scope["passed"] is True, fault
        elif part != "mended" and name not in ("curves", "verdicts", "result"):
            exec(cell.source, scope)
