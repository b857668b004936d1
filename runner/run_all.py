"""Run the notebooks with papermill; what `make run-all` calls. `python -m runner.run_all --help` lists the options.

What is unchanged is kept, and what was killed goes on after its last epoch. Exit status: 0 if every notebook ran to its last cell, 1 if
not, 2 if the call makes no sense, 130 after Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import filelock

from utils.files import atomic_write

from . import provenance

ROOT = Path(__file__).resolve().parents[1]
SECONDS = json.loads(Path(__file__).with_name("seconds.json").read_text(encoding="utf-8"))  # of each notebook, where it was measured
PARAMETERS = ("BUDGET", "DATA", "EPOCHS", "SEED", "DEVICE")  # what every notebook's parameters cell defines


def parse(arguments):
    parser = argparse.ArgumentParser(prog="run-all", description="Run the notebooks with papermill.", allow_abbrev=False)
    parser.add_argument("--budget", choices=("auto", "smoke", "quick", "full", "paper"), default="auto")
    parser.add_argument("--data", default="auto", help="cifar100, cifar10, fashionmnist, synthetic or a folder of class folders")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--epochs", type=int, help="instead of the budget's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NN", default=[], help="numbers of notebooks")
    parser.add_argument("--store", action="store_true", help="write the outputs back into notebooks/")
    parser.add_argument("--fresh", action="store_true", help="run again what is unchanged, and from its first epoch")
    return parser.parse_args(arguments)


def check(options):
    """The notebooks to run, once it is clear that each can start; settles what "auto" means. Raises ValueError or OSError, in one line."""
    notebooks = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    unknown = sorted(set(options.only) - set(notebooks))
    if unknown:
        raise ValueError(f"no notebook {' '.join(unknown)} in notebooks/: there are {' '.join(notebooks)}")
    for name, value, least in (("epochs", options.epochs, 1), ("seed", options.seed, 0)):
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")

    import papermill  # from here on the imports cost seconds: a mistyped option was answered at once

    from utils import data, experiment

    chosen = [path for number, path in notebooks.items() if number in options.only or not options.only]
    for path in chosen:
        for name in set(PARAMETERS) - set(papermill.inspect_notebook(path)):
            raise ValueError(f"{path.relative_to(ROOT)} has no parameter {name} in its parameters cell")
    try:
        (ROOT / "figures").mkdir(exist_ok=True)
        (ROOT / "figures" / "writable").touch()
        (ROOT / "figures" / "writable").unlink()
    except OSError as error:
        raise OSError(f"cannot write to figures/ ({error.strerror}): make it writable") from None
    options.budget, device = experiment.resolve(options.budget, options.device)
    options.device = str(device)
    if options.data != "auto":
        data.load(options.data, fallback=False)
    return chosen


def clean_environment():
    """What the kernels inherit: UTF-8, this environment's own kernel, and nothing of the user's settings for plots and IPython."""
    plain = Path(find_spec("matplotlib").origin).with_name("mpl-data") / "matplotlibrc"
    own, modules = ROOT / "figures" / "checkpoints", filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": os.pathsep.join(modules), "MATPLOTLIBRC": str(plain)}
    os.environ |= {"IPYTHONDIR": str(own / "ipython"), "JUPYTER_RUNTIME_DIR": str(own / "jupyter"), "JUPYTER_PREFER_ENV_PATH": "1"}
    os.environ |= {} if sys.stdout.isatty() else {"TQDM_DISABLE": "1"}  # progress bars are for a terminal, not for a log
    for name in ("MPLBACKEND", "JUPYTER_PATH", "PYTHONSTARTUP"):
        os.environ.pop(name, None)


def execute(path, parameters, partial):
    """Execute one notebook into the file `partial`. Returns (the executed notebook, None), or (None, what went wrong and where)."""
    import papermill

    started = []  # the cells that were begun
    try:
        notebook = papermill.execute_notebook(
            path, partial, parameters, kernel_name="python3", cwd=path.parent, progress_bar=False, coalesce_streams=True,
            stdout_file=sys.stdout, stderr_file=sys.stderr, request_save_on_cell_execute=False,
            shutdown_kernel="immediate", on_cell_start=lambda cell, cell_index: started.append(cell.id),
        )  # fmt: skip
        ran = [cell.execution_count is not None for cell in notebook.cells if cell.cell_type == "code"]
        problem = None if all(ran) else f"ended early: {sum(ran)} of {len(ran)} code cells ran"
    except papermill.PapermillExecutionError as error:
        problem = f"{error.ename}: {error.evalue}"
    except Exception as error:  # the kernel died, or did not start
        problem = f"{type(error).__name__}: {error}"
    if not problem:
        return notebook, None
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    where = f"cell {ids.index(started[-1]) + 1}" if started and started[-1] in ids else "before the first cell"
    return None, f"{where}: {problem}"


def run(path, parameters, fingerprint, fresh):
    """Run one notebook, unless another process is at it. Returns (its record, None), or (None, what went wrong).

    The record, run.json beside the results, names the code, the data and the digest of every file that the run wrote.
    """
    home, start = ROOT / "figures" / path.stem, time.monotonic()
    work = ROOT / "figures" / "checkpoints" / f"{path.stem}-{fingerprint}"
    partial, failed = work / path.name, home / f"{path.stem}.failed.ipynb"
    for folder in (work, home):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(work.with_suffix(".lock"), timeout=0).acquire()
    except filelock.Timeout:
        return None, "another run-all is at this notebook with the same options: wait for its end"
    with lock:
        if fresh:
            shutil.rmtree(work)
            work.mkdir()
        source = provenance.source(path)  # now, before a file is edited
        os.environ |= {"RESNET_CHECKPOINTS": str(work), "RESNET_PROGRESS": "off"}  # a run is no attempt at an exercise
        try:
            notebook, problem = execute(path, parameters, partial)
        except BaseException:  # Ctrl-C
            partial.unlink(missing_ok=True)
            raise
        finally:
            del os.environ["RESNET_CHECKPOINTS"]  # what runs next must not take up these checkpoints
        failed.unlink(missing_ok=True)  # of an earlier run
        if problem:
            if partial.exists():
                os.replace(partial, failed)
            return None, problem
        told = work / "experiment.json"  # by the notebook's Experiment
        record = {"folder": f"figures/{path.stem}", "data": [], "files": {}}
        record |= json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        folder = ROOT / record["folder"]
        os.replace(partial, folder / path.name)
        printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
        record |= {
            "result": (re.findall("^Main result: (.*)$", printed, re.MULTILINE) or [""])[-1], "parameters": parameters,
            "seconds": round(time.monotonic() - start), "source": source, "fingerprint": fingerprint,
        }  # fmt: skip
        record["files"][path.name] = provenance.digest((folder / path.name).read_bytes())
        with atomic_write(folder / "run.json") as whole:
            whole.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)
    return record, None


def earlier(path, fingerprint):
    """The record of an earlier run with this fingerprint, if its files and its data are the same today; else None."""
    from utils import data

    for place in (ROOT / "figures" / path.stem).rglob("run.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a data set is gone, or it is no record of ours
            record = json.loads(place.read_text(encoding="utf-8"))
            same = record["fingerprint"] == fingerprint and not provenance.changed(place.parent, record)
            if same and all(data.load(used["asked"], like=used["like"]).digest == used["digest"] for used in record["data"]):
                return record
    return None


def store_outputs(executed, path):
    """Put the outputs of an executed copy, but of those tagged "timing", into the notebook, whose text may have been edited meanwhile."""
    import nbformat

    notebook, executed = (nbformat.read(file, as_version=4) for file in (path, executed))
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code" and "timing" not in cell.metadata.tags}
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count, cell.outputs = number, outputs.get(cell.id, [])
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if "text" in output:
                output.text = re.sub(r"[^\n]*\r", "", output.text)  # what a progress bar has overwritten
        cell.outputs = [output for output in cell.outputs if output.get("text", "shown")]
    made = "".join(output.get("text", "") for output in outputs.get("lab", [])).partition("\n")[0]  # what they are from
    notebook.cells[0].source = re.sub(r"\*Stored outputs: .*\*", lambda _: f"*Stored outputs: {made}.*", notebook.cells[0].source)
    with atomic_write(path) as partial:
        nbformat.write(notebook, partial)


def announce(notebooks, options):
    """Say what is about to run, and how long that took where it was measured."""
    measured = SECONDS.get(f"{options.budget}, {options.device.partition(':')[0]}", {})
    minutes = sum(measured.get(path.stem, 0) for path in notebooks) / 60
    rest = "".join(f", and {path.stem[:2]}, not timed yet" for path in notebooks if path.stem not in measured)
    print(f"{len(notebooks)} notebooks, {options.budget} budget, on {options.device}: about {minutes:.0f} min if all are run{rest}")


def main(arguments=None):
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that cannot show a ✓ gets a ?
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell starts background jobs with Ctrl-C switched off
        signal.signal(number, signal.default_int_handler)
    clean_environment()
    try:
        notebooks = check(options)
    except (ValueError, OSError) as error:
        print(f"run-all: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    announce(notebooks, options)
    parameters, rows = {name: getattr(options, name.lower()) for name in PARAMETERS}, []
    for path in notebooks:
        print(f"\n=== {path.stem} ===", flush=True)
        start, problem, fingerprint = time.monotonic(), None, provenance.fingerprint(path, parameters)
        try:
            record = kept = None if options.fresh else earlier(path, fingerprint)
            if not kept:
                record, problem = run(path, parameters, fingerprint, options.fresh)
        except KeyboardInterrupt:
            print(f"\nrun-all: interrupted in {path.relative_to(ROOT)}; its earlier results are untouched", file=sys.stderr)
            return 130
        if record and options.store:
            store_outputs(ROOT / record["folder"] / path.name, path)
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        status, result = ("FAILED", problem) if problem else ("ok, kept" if kept else "ok", record["result"])
        print("unchanged since it last ran to its end: not run again" if kept else "")
        rows.append(f"{path.stem:26} {status:8} {minutes:3}:{seconds:02d} min  {result.partition(chr(10))[0]}")
    print("", f"{'notebook':26} {'status':8} {'time':>10}  main result", *rows, sep="\n")
    return int(any(" FAILED " in row[:36] for row in rows))


if __name__ == "__main__":
    if sys.getfilesystemencoding() != "utf-8":  # an ASCII terminal: names of files would be garbled
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    sys.exit(main())
