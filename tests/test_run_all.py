"""The runner on small notebooks of its own: what it refuses, what it reports, what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from runner import provenance, run_all

HERE = Path(__file__).parents[1]
PARAMETERS = "BUDGET = 'auto'\nDATA = 'auto'\nEPOCHS = None\nSEED = 0\nDEVICE = 'auto'"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project; call it with the cells of a notebook to add one."""
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    environment = dict(os.environ)  # of which main() sets some
    for name in ("RESNET_BUDGET", "RESNET_DATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()

    def add(name, *cells, parameters=PARAMETERS):
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / name)
        return tmp_path / "notebooks" / name

    add.root = tmp_path
    yield add
    os.environ.clear()
    os.environ.update(environment)


def executed(project):
    return sorted(path.name for path in (project.root / "figures").rglob("*.ipynb"))


def record(project, name="01_a"):
    return json.loads((project.root / "figures" / name / "run.json").read_text())


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
    assert "RESNET_CHECKPOINTS" not in os.environ, "what runs next would take up the checkpoints of 04"
    assert executed(project) == ["01_fails.failed.ipynb", "03_ends_early.failed.ipynb", "04_works.ipynb"]
    notebook = nbformat.read(project.root / "figures" / "04_works" / "04_works.ipynb", as_version=4)
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "('smoke', 7)"
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


def test_the_first_cell_says_what_the_stored_outputs_are_from(project):
    path = project("01_a.ipynb", "print('CIFAR-10, full budget, seed 0, on a GPU')\nprint('plots and results: figures/a')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# A title\n\n*Stored outputs: not yet made.*\n**Time:** *long*."))
    notebook.cells[2].id = "lab"
    nbformat.write(notebook, path)
    assert run_all.main(["--budget", "smoke", "--store"]) == 0
    text = "# A title\n\n*Stored outputs: CIFAR-10, full budget, seed 0, on a GPU.*\n**Time:** *long*."
    assert nbformat.read(path, as_version=4).cells[0].source == text


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
        raise data.NoNetwork("no answer")

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


WITH_DATA = "import os; os.environ['RESNET_CHECKPOINTS']"
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


@pytest.mark.slow
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
    monkeypatch.setattr("utils.experiment.versions", lambda: {"torch": "9.9"})
    assert runs_again() and not runs_again()
    (project.root / "figures" / "01_a" / "01_a.ipynb").unlink()
    assert runs_again() and not runs_again()
    monkeypatch.setenv("RESNET_PRECISION", "float32")
    assert runs_again() and not runs_again()


def test_a_new_data_set_counts_only_if_the_notebook_uses_it(project, monkeypatch):
    from utils import data

    project("01_a.ipynb", COUNTS, WITH_DATA)
    now = {"cifar10": data.synthetic("cifar10", 50, 20), "cifar100": data.synthetic("cifar100", 200, 100)}
    monkeypatch.setattr(data, "load", lambda name, like: now[name])
    assert run_all.main(["--budget", "smoke"]) == 0
    path = project.root / "figures" / "01_a" / "run.json"
    told = json.loads(path.read_text()) | {"data": [{"asked": "cifar10", "like": "cifar10", "digest": now["cifar10"].digest}]}
    path.write_text(json.dumps(told))
    assert run_all.main(["--budget", "smoke"]) == 0 and runs(project) == 1
    now["cifar100"] = data.synthetic("cifar100", 300, 100)
    assert run_all.main(["--budget", "smoke"]) == 0 and runs(project) == 1
    now["cifar10"] = data.synthetic("cifar10", 60, 20)
    assert run_all.main(["--budget", "smoke"]) == 0 and runs(project) == 2


def test_a_run_is_told_from_one_on_another_device_or_budget(project, monkeypatch):
    """What "auto" stands for counts, not the word: a machine with a GPU must not keep the quick results of a laptop."""
    from utils import experiment

    path = project("01_a.ipynb", COUNTS)
    assert run_all.main([]) == 0
    quick = record(project)
    assert quick["parameters"]["BUDGET"] == ("full" if quick["parameters"]["DEVICE"] == "cuda" else "quick")
    resolved = [experiment.resolve("auto", "auto")]
    monkeypatch.setattr(experiment, "resolve", lambda budget, device: ("full", "cuda"))
    options = run_all.parse([])
    run_all.check(options)
    on_gpu = {name: getattr(options, name.lower()) for name in run_all.PARAMETERS}
    assert (on_gpu["BUDGET"], on_gpu["DEVICE"]) == ("full", "cuda") != resolved[0]
    assert provenance.fingerprint(path, on_gpu) != provenance.fingerprint(path, quick["parameters"]) == quick["fingerprint"]


SMOKE = ["--data", "synthetic", "--budget", "smoke"]
LAB = """from pathlib import Path
import matplotlib.pyplot as plt
from utils import data, experiment
data.ROOT = Path(ROOT)
experiment.FIGURES = data.ROOT / 'figures'
lab = experiment.Experiment('01_a', 'cifar10', BUDGET, DATA, EPOCHS, SEED, DEVICE)
lab.save_result('numbers', steps=1, seeds=[SEED] * 1000)"""


@pytest.mark.slow
def test_a_result_that_is_lost_or_changed_is_made_again(project):
    project("01_a.ipynb", f"ROOT = {str(project.root)!r}\n{COUNTS}\n{LAB}")
    assert run_all.main(SMOKE) == 0 == run_all.main(SMOKE) and runs(project) == 1
    folder = project.root / "figures" / "01_a" / "smoke-synthetic"
    assert set(json.loads((folder / "run.json").read_text())["files"]) == {"numbers.json", "01_a.ipynb"}
    (folder / "numbers.json").write_text("1")
    assert run_all.main(SMOKE) == 0 and runs(project) == 2
    assert json.loads((folder / "numbers.json").read_text())["steps"] == 1
    for seed in "10":  # each seed has results of its own, so those of seed 0 are still there
        assert run_all.main(SMOKE + ["--seed", seed]) == 0 and runs(project) == 3
    for name, seed in (("smoke-synthetic", 0), ("smoke-synthetic-seed1", 1)):
        assert json.loads((folder.parent / name / "numbers.json").read_text())["seed"] == seed
    (folder / "numbers.json").unlink()
    (path,) = (project.root / "notebooks").glob("*.ipynb")
    assert run_all.earlier(path, json.loads((folder / "run.json").read_text())["fingerprint"]) is None


DOWNLOAD = """import numpy as np
import torchvision
class Fetched:
    def __init__(self, root, train, download):
        n = 50 if train else 20
        self.data, self.targets = np.zeros((n, 32, 32, 3), np.uint8), [i % 10 for i in range(n)]
        self.classes = [str(i) for i in range(10)]
torchvision.datasets.CIFAR10 = Fetched
data.load.__defaults__ = (Path(ROOT) / 'data',)"""


@pytest.mark.slow
def test_a_data_set_that_the_run_downloads_does_not_make_the_next_run_start_over(project, monkeypatch):
    from utils import data

    first, last = LAB.split("lab = ")
    project("01_a.ipynb", f"ROOT = {str(project.root)!r}\n{COUNTS}\n{first}{DOWNLOAD}\nlab = {last}")
    assert run_all.main(["--budget", "smoke"]) == 0 and (project.root / "data" / "cifar10.npz").exists()
    monkeypatch.setattr(data.load, "__defaults__", (project.root / "data",))
    assert run_all.main(["--budget", "smoke"]) == 0 and runs(project) == 1


def test_a_failed_notebook_is_run_again_and_its_checkpoints_stay(project, capsys):
    project("01_a.ipynb", COUNTS, "import os\nprint(os.environ['RESNET_CHECKPOINTS'])\n1 / 0")
    assert run_all.main([]) == 1
    (saved,) = (folder for folder in (project.root / "figures" / "checkpoints").glob("01_a-*") if folder.is_dir())
    assert str(saved) in capsys.readouterr().out
    (saved / "run.pt").write_text("an epoch")
    assert run_all.main([]) == 1 and runs(project) == 2 and (saved / "run.pt").exists()
    assert run_all.main(["--fresh"]) == 1 and not (saved / "run.pt").exists()


def test_the_same_run_twice_at_once_is_refused(project, capsys, running):
    process, _ = running
    assert run_all.main([]) == 1
    assert "another run-all is at this notebook with the same options: wait for its end" in capsys.readouterr().out
    process.kill()
    process.communicate(timeout=30)


@pytest.mark.slow
def test_two_different_runs_at_once_leave_whole_files(project):
    project("01_a.ipynb", f"ROOT = {str(project.root)!r}\n{LAB}", "print('Main result:', SEED)")
    here = {"cwd": HERE, "env": os.environ | {"PYTHONPATH": str(HERE)}, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", MAIN.format(str(project.root), SMOKE + ["--seed", seed])], stdout=subprocess.PIPE, **here)
        for seed in "12"
    ]
    for process, seed in zip(both, "12", strict=True):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and out.rstrip().endswith(f"  {seed}"), out
        numbers = project.root / "figures" / "01_a" / f"smoke-synthetic-seed{seed}" / "numbers.json"
        assert set(json.loads(numbers.read_text())["seeds"]) == {int(seed)}
    assert not list(project.root.rglob("*partial*"))


# A run-all of the project in a process of its own.
MAIN = "import sys; from pathlib import Path; from runner import run_all; run_all.ROOT = Path({!r}); sys.exit(run_all.main({!r}))"


@pytest.fixture
def running(project):
    """A run-all in the middle of a notebook, as a process of its own; and the kernels that it started."""
    project("01_a.ipynb", "print('begun', flush=True)\nimport time\ntime.sleep(300)")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN.format(str(project.root), [])], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
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


BARS = "from tqdm import tqdm\nimport time, sys\nfor _ in tqdm(range(3), 'bar', file=sys.stdout, mininterval=0): time.sleep(0.05)"


def test_progress_bars_are_for_a_terminal_alone(project, capfd):
    project("01_a.ipynb", BARS, "print('live')")
    assert run_all.main([]) == 0
    out = capfd.readouterr().out
    assert "live" in out and "bar" not in out.replace("01_a", "") and "\r" not in out


def test_the_kernel_gets_a_clean_environment(project, monkeypatch, tmp_path, capsys):
    """Nothing of the user's settings: plots, IPython's startup files, the encoding of the terminal."""
    home = tmp_path / "home é"
    (home / "ipython" / "profile_default" / "startup").mkdir(parents=True)
    (home / "ipython" / "profile_default" / "startup" / "00.py").write_text("startup = 'mine'")
    (home / "matplotlibrc").write_text("figure.figsize: 1, 1")
    for name, value in {
        "IPYTHONDIR": str(home / "ipython"), "MPLCONFIGDIR": str(home), "MPLBACKEND": "TkAgg", "LC_ALL": "C", "PYTHONIOENCODING": "latin-1",
        "PYTHONUTF8": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    cell = "import matplotlib.pyplot as plt\nplt.figure()\nprint('✓', 'startup' in globals(), plt.rcParams['figure.figsize'])"
    project("01_a.ipynb", cell)
    assert run_all.main([]) == 0
    assert "✓ False [6.4, 4.8]" in capsys.readouterr().out


@pytest.mark.slow
def test_a_terminal_of_ascii_and_a_folder_with_an_accent(project, tmp_path):
    place = tmp_path / "prüfung é"
    for part in ("utils", "runner"):
        shutil.copytree(HERE / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = project("01_a.ipynb", "from utils import files\nprint('✓', files.__file__)\nprint('Main result: é')")
    (place / "notebooks").mkdir()
    shutil.copy(path, place / "notebooks")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(place)}
    command = [sys.executable, "-m", "runner.run_all"]
    done = subprocess.run(command, cwd=place, env=os.environ | ascii_only, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0 and "prüfung é" in done.stdout and done.stdout.rstrip().endswith("é"), done.stdout + done.stderr


@pytest.mark.slow
def test_a_terminal_that_cannot_show_a_tick_does_not_stop_the_run(project):
    project("01_a.ipynb", "print('✓ done')")
    code = MAIN.format(str(project.root), [])
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"? done" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", [{"HOME": "/proc/1/nothing"}, {"umask": 0o077}])
def test_a_home_that_cannot_be_written_to_and_a_strict_umask(project, surroundings):
    project("01_a.ipynb", "import matplotlib.pyplot as plt\nplt.figure()\nprint('Main result: drawn')")
    environment = os.environ | {"PYTHONPATH": str(HERE)} | {name: value for name, value in surroundings.items() if name == "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN.format(str(project.root), [])], cwd=HERE, env=environment, capture_output=True, text=True,
        umask=surroundings.get("umask", -1), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.rstrip().endswith("drawn"), done.stderr


def test_a_kernel_of_the_users_named_python3_is_not_taken(project, tmp_path, monkeypatch):
    kernel = tmp_path / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "mine", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "share"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    project("01_a.ipynb", "print('Main result: ours')")
    assert run_all.main([]) == 0


def test_a_project_in_a_folder_with_an_awkward_name(project, tmp_path, monkeypatch):
    root = tmp_path / "my $HOME é notes"
    (project.root / "notebooks").rename(tmp_path / "elsewhere")
    root.mkdir()
    (tmp_path / "elsewhere").rename(root / "notebooks")
    monkeypatch.setattr(run_all, "ROOT", root)
    project.root = root
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.read(project("01_a.ipynb", COUNTS), as_version=4), root / "notebooks" / "01_a.ipynb")
    for expected in (1, 1):
        assert run_all.main([]) == 0 and runs(project) == expected


def test_what_is_about_to_run_is_said_first(project, capsys, monkeypatch):
    project("01_cnn_cifar100.ipynb", "1")
    project("99_new.ipynb", "1")
    monkeypatch.setattr(run_all, "SECONDS", {"smoke, cpu": {"01_cnn_cifar100": 120}})
    assert run_all.main(["--budget", "smoke", "--device", "cpu"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "2 notebooks, smoke budget, on cpu: about 2 min if all are run, and 99, not timed yet"


def test_imports_are_quick_before_the_command_line_is_checked():
    """A mistyped option is answered without waiting for torch or papermill."""
    code = "import sys, runner.run_all; print([name for name in ('torch', 'papermill', 'nbformat') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[]"
