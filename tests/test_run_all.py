"""The runner on small notebooks of its own: what it refuses, what it reports, what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from utils import run_all

HERE = Path(__file__).parents[1]
PARAMETERS = "BUDGET = 'auto'\nDATA = 'auto'\nEPOCHS = None\nSEED = 0\nDEVICE = 'auto'"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project; call it with the cells of a notebook to add one."""
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(run_all, "EXECUTED", tmp_path / "figures" / "notebooks")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # which main() sets
    (tmp_path / "notebooks").mkdir()

    def add(name, *cells, parameters=PARAMETERS):
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / name)
        return tmp_path / "notebooks" / name

    add.root = tmp_path
    return add


def executed(project):
    return sorted(path.name for path in (project.root / "figures" / "notebooks").glob("[!.]*.ipynb"))


def test_one_failing_notebook_is_named_and_the_others_run(project, capsys):
    project("01_fails.ipynb", "a = 1", "1 / 0", "print('never')")
    project("02_dies.ipynb", "import os", "os._exit(3)")
    project("03_ends_early.ipynb", "import sys", "sys.exit(0)", "print('never')")
    project("04_works.ipynb", "print('live'); print('Main result: 42 %')", "BUDGET, EPOCHS")
    assert run_all.main(["--budget", "smoke", "--epochs", "7"]) == 1
    out = capsys.readouterr().out
    table = {line.split()[0]: line for line in out.split("main result")[1].splitlines() if line}
    assert "FAILED" in table["01_fails"] and table["01_fails"].endswith("cell 3: ZeroDivisionError: division by zero")
    assert "FAILED" in table["02_dies"] and "cell 3" in table["02_dies"] and "died" in table["02_dies"].lower()
    assert "FAILED" in table["03_ends_early"] and "cell 3" in table["03_ends_early"]
    assert " ok " in table["04_works"] and table["04_works"].endswith("42 %")
    assert "live" in out and "never" not in out
    assert "RESNET_FINGERPRINT" not in os.environ, "what runs next would take up the checkpoints of 04"
    assert executed(project) == ["01_fails.failed.ipynb", "03_ends_early.failed.ipynb", "04_works.ipynb"]
    whole = nbformat.read(run_all.EXECUTED / "04_works.ipynb", as_version=4)
    assert whole.cells[-1].outputs[0].data["text/plain"] == "('smoke', 7)"
    project("01_fails.ipynb", "'mended'")
    assert run_all.main(["--only", "01"]) == 0
    assert executed(project) == ["01_fails.ipynb", "03_ends_early.failed.ipynb", "04_works.ipynb"]


def test_stored_outputs_have_no_remains_of_a_progress_bar(project):
    path = project(
        "01_a.ipynb", "print('10 %', end='\\r'); print('20 %', end='\\r'); print('    ', end='\\r')", "print('50 %', end='\\rdone\\n')"
    )
    assert run_all.main(["--budget", "smoke", "--store"]) == 0
    cells = nbformat.read(path, as_version=4).cells
    assert cells[1].outputs == [] and cells[2].outputs[0].text == "done\n"


def test_only_some(project, capsys):
    for name in ("01_a.ipynb", "02_b.ipynb", "03_c.ipynb"):
        project(name, "1")
    assert run_all.main(["--only", "01", "03"]) == 0
    assert executed(project) == ["01_a.ipynb", "03_c.ipynb"]


def test_stored_outputs_have_no_timings_and_no_injected_parameters(project):
    path = project("01_a.ipynb", "print(BUDGET)", "SEED")
    before = nbformat.read(path, as_version=4)
    assert run_all.main(["--budget", "smoke", "--store"]) == 0
    first = path.read_bytes()
    after = nbformat.read(path, as_version=4)
    assert [(cell.id, cell.source) for cell in after.cells] == [(cell.id, cell.source) for cell in before.cells]
    assert [cell.execution_count for cell in after.cells] == [1, 2, 3]
    assert after.cells[1].outputs[0].text == "smoke\n" and after.cells[2].outputs[0].execution_count == 3
    assert "papermill" not in after.metadata and all(set(cell.metadata) <= {"tags"} for cell in after.cells)
    assert run_all.main(["--budget", "smoke", "--store"]) == 0
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "07"], "no notebook 07 in notebooks/: there are 01"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--device", "cuda:99"], "no device 'cuda:99' here: use auto, cpu"),
        (["--data", "cifar11"], "no data set 'cifar11'"),
    ],
)
def test_refused_before_anything_runs(project, capsys, arguments, message):
    project("01_a.ipynb", "1")
    assert run_all.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("run-all: ") and message in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["--budget", "big"], ["--buget", "smoke"], ["--epochs", "many"], ["epochs=3"]])
def test_mistyped_options_are_refused(project, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run_all.main(arguments)
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err


def test_a_notebook_without_the_parameters_is_refused(project, capsys):
    project("01_a.ipynb", "1", parameters="BUDGET = 'auto'\nDATA = 'auto'\nEPOCH = None\nSEED = 0\nDEVICE = 'auto'")
    assert run_all.main([]) == 2
    assert "notebooks/01_a.ipynb has no parameter EPOCHS in its parameters cell" in capsys.readouterr().err


def test_asking_for_data_that_is_not_there_fails_in_one_line(project, capsys, monkeypatch):
    from utils import data

    def unreachable(name, root):
        raise OSError("no network")

    monkeypatch.setattr(data, "_download", unreachable)
    monkeypatch.setattr(data.load, "__defaults__", (project.root / "nothing",))
    project("01_a.ipynb", "1")
    assert run_all.main(["--data", "cifar100"]) == 2
    error = capsys.readouterr().err
    assert "cifar100 is not in" in error and "DATA=synthetic" in error and error.count("\n") == 1


def test_figures_that_cannot_be_written_to(project, capsys):
    (project.root / "figures").write_text("a file in the way")  # as good as a read-only folder, and stops root, too
    project("01_a.ipynb", "1")
    assert run_all.main([]) == 2
    assert "cannot write to figures/" in capsys.readouterr().err


COUNTS = "from pathlib import Path\nwith open('runs', 'a') as file:\n    file.write('x')\nprint('Main result: seven')"


def runs(project):
    return len((project.root / "notebooks" / "runs").read_text())


def test_a_finished_notebook_is_not_run_again_while_nothing_has_changed(project, capsys):
    path = project("01_a.ipynb", COUNTS)
    assert run_all.main(["--budget", "smoke"]) == 0
    capsys.readouterr()
    assert run_all.main(["--budget", "smoke"]) == 0
    out = capsys.readouterr().out
    assert runs(project) == 1 and "not run again" in out and "ok, kept" in out and out.rstrip().endswith("seven")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "  # a comment"
    notebook.cells.append(nbformat.v4.new_markdown_cell("a new text"))
    nbformat.write(notebook, path)
    assert run_all.main(["--budget", "smoke", "--store"]) == 0 and runs(project) == 1
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[1].outputs[0].text == "Main result: seven\n" and stored.cells[1].source.endswith("# a comment")
    assert stored.cells[2].source == "a new text"


def test_a_finished_notebook_is_run_again_when_something_has(project, monkeypatch):
    path = project("01_a.ipynb", COUNTS)
    arguments = ["--budget", "smoke"]

    def runs_again(*more):
        before = runs(project)
        assert run_all.main([*arguments, *more]) == 0
        return runs(project) == before + 1

    assert run_all.main(arguments) == 0
    assert runs_again("--seed", "1") and not runs_again("--seed", "1")
    assert runs_again("--seed", "1", "--fresh")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "\n1 + 1"
    nbformat.write(notebook, path)
    assert runs_again() and not runs_again()
    monkeypatch.setattr(run_all.provenance, "versions", lambda: {"torch": "9.9"})
    assert runs_again() and not runs_again()
    (run_all.EXECUTED / "01_a.ipynb").unlink()
    assert runs_again() and not runs_again()
    (project.root / "data").mkdir()
    (project.root / "data" / "cifar10.npz").write_text("new")
    monkeypatch.setattr(run_all.provenance, "ROOT", project.root)
    assert runs_again() and not runs_again()


def test_a_lost_result_is_made_again(project):
    folder = project.root / "figures" / "01_a"
    project("01_a.ipynb", COUNTS, f"folder = Path({str(folder)!r}); folder.mkdir(exist_ok=True); (folder / 'plain.json').write_text('1');")
    assert run_all.main([]) == 0 == run_all.main([]) and runs(project) == 1
    (folder / "plain.json").unlink()
    assert run_all.main([]) == 0 and runs(project) == 2 and (folder / "plain.json").exists()


def test_a_failed_notebook_is_run_again_and_its_checkpoints_stay(project, capsys):
    path = project("01_a.ipynb", COUNTS, "import os\nprint(os.environ['RESNET_FINGERPRINT'])\n1 / 0")
    assert run_all.main([]) == 1
    mark = run_all.provenance.fingerprint(path, dict.fromkeys(run_all.PARAMETERS, "auto") | {"EPOCHS": None, "SEED": 0})
    assert mark in capsys.readouterr().out
    saved = run_all.checkpoints(path, mark)
    saved.mkdir(parents=True)
    assert run_all.main([]) == 1 and runs(project) == 2 and saved.exists()
    assert run_all.main(["--fresh"]) == 1 and not saved.exists()


def test_the_same_run_twice_at_once_is_refused(project, capsys, running):
    process, _ = running
    assert run_all.main([]) == 1
    assert "another run-all is at this notebook with the same options: wait for its end" in capsys.readouterr().out
    process.kill()
    process.communicate(timeout=30)


def test_two_different_runs_at_once_leave_whole_files(project):
    results = project.root / "figures" / "01_a"
    project(
        "01_a.ipynb",
        "from pathlib import Path\nimport matplotlib.pyplot as plt\nfrom utils import data, experiment\n"
        f"data.ROOT = Path({str(project.root)!r}); experiment.FIGURES = data.ROOT / 'figures'\n"
        "for _ in range(10):\n"
        "    lab = experiment.Experiment('01_a', 'cifar10', 'quick', 'synthetic', EPOCHS, SEED, 'cpu')\n"
        "    lab.save_figure(plt.figure(), 'plot')\n"
        "    lab.save_result('numbers', seeds=[SEED] * 1000, steps=1)",
        "print('Main result:', SEED)",
    )
    code = (
        "import sys; from pathlib import Path; from utils import run_all\n"
        f"run_all.ROOT = Path({str(project.root)!r}); run_all.NOTEBOOKS = run_all.ROOT / 'notebooks'\n"
        "run_all.EXECUTED = run_all.ROOT / 'figures' / 'notebooks'; sys.exit(run_all.main(['--seed', sys.argv[1]]))"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    both = [
        subprocess.Popen([sys.executable, "-c", code, seed], cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True) for seed in "12"
    ]
    for process, seed in zip(both, "12", strict=True):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and out.rstrip().endswith(f"  {seed}"), out
    record = json.loads((results / "synthetic-quick" / "numbers.json").read_text())
    assert set(record["seeds"]) == {record["seed"]} and not list(project.root.rglob("*partial*"))
    assert len(nbformat.read(run_all.EXECUTED / "01_a.ipynb", as_version=4).cells) == 4


@pytest.fixture
def running(project):
    """A run-all in the middle of a notebook, as a process of its own; and the kernels that it started."""
    project("01_a.ipynb", "print('begun', flush=True)\nimport time\ntime.sleep(300)")
    code = (
        "import sys; from pathlib import Path; from utils import run_all\n"
        f"run_all.ROOT = Path({str(project.root)!r}); run_all.NOTEBOOKS = run_all.ROOT / 'notebooks'\n"
        "run_all.EXECUTED = run_all.ROOT / 'figures' / 'notebooks'; sys.exit(run_all.main([]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    return process, kernels


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process_and_no_half_file_behind(project, running, number):
    process, kernels = running
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error.strip().endswith("interrupted in notebooks/01_a.ipynb; its earlier results are untouched")
    assert not psutil.wait_procs(kernels, timeout=10)[1]
    assert executed(project) == []


def test_a_killed_runner_leaves_no_kernel_behind(running):
    process, kernels = running
    process.kill()
    process.communicate(timeout=30)
    assert not psutil.wait_procs(kernels, timeout=20)[1]


def test_output_comes_live_and_overwritten_lines_only_in_their_final_state(capsys):
    live = run_all.Live(sys.stdout)
    for text in ("\r10 %", "\r20 %", "\r     \r", "done\nnext", " line\n", "rest"):
        live.write(text)
    assert capsys.readouterr().out == "done\nnext line\n"


def test_imports_are_quick_before_the_command_line_is_checked():
    """A mistyped option is answered without waiting for torch or papermill."""
    code = "import sys, utils.run_all; print([name for name in ('torch', 'papermill', 'nbformat') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[]"
