"""Run the notebooks with papermill, one after the other; what `make run-all` calls.

    python -m utils.run_all [--budget quick] [--data cifar10] [--device cuda] [--epochs 3] [--seed 1] [--only 01 03] [--store] [--fresh]

The executed copies are kept in figures/notebooks/; --store also writes their outputs back into notebooks/. A notebook that ran to
its end is not run again while its code, parameters, data and versions are the same, and one that was killed goes on behind the
last epoch it finished; --fresh starts over. Exit status: 0 if every notebook ran to its last cell, 1 if one did not, 2 if the
call makes no sense, 130 after Ctrl-C.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import provenance
from .files import whole

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "figures" / "notebooks"
PARAMETERS = ("BUDGET", "DATA", "EPOCHS", "SEED", "DEVICE")  # what every notebook's parameters cell defines
MAIN_RESULT = "Main result: "  # the last line that a notebook prints starts with this


def parse(arguments):
    parser = argparse.ArgumentParser(prog="run-all", description="Run the notebooks with papermill.", allow_abbrev=False)
    parser.add_argument("--budget", choices=("auto", "smoke", "quick", "full"), default="auto")
    parser.add_argument("--data", default="auto", help="cifar100, cifar10, fashionmnist, synthetic or a folder of class folders")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--epochs", type=int, help="instead of the budget's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NN", default=[], help="numbers of notebooks")
    parser.add_argument("--store", action="store_true", help="write the outputs back into notebooks/")
    parser.add_argument("--fresh", action="store_true", help="run again what is unchanged, and from its first epoch")
    return parser.parse_args(arguments)


def check(options):
    """The notebooks to run, once it is clear that each can start. Raises ValueError or OSError with one line if not."""
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    unknown = set(options.only) - {path.name[:2] for path in notebooks}
    if unknown:
        have = " ".join(path.name[:2] for path in notebooks)
        raise ValueError(f"no notebook {' '.join(sorted(unknown))} in notebooks/: there are {have}")
    notebooks = [path for path in notebooks if path.name[:2] in options.only or not options.only]
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {options.epochs}")
    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {options.seed}")

    import papermill  # from here on the imports cost seconds: a mistyped option was answered at once

    for path in notebooks:
        missing = set(PARAMETERS) - set(papermill.inspect_notebook(path))
        if missing:
            raise ValueError(f"{path.relative_to(ROOT)} has no parameter {', '.join(sorted(missing))} in its parameters cell")
    try:
        EXECUTED.mkdir(parents=True, exist_ok=True)
        (EXECUTED / ".writable").touch()
        (EXECUTED / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write to figures/ ({error.strerror}): make it writable") from None
    if options.device != "auto":
        from . import train

        train.device(options.device)
    if options.data != "auto":
        from . import data

        data.load(options.data, fallback=False)
    return notebooks


class Live:
    """Passes a kernel's output on as it comes; to a file or pipe, a line that is overwritten goes in its final state only."""

    def __init__(self, out):
        self.out, self.line = out, ""

    def write(self, text):
        if not self.out.isatty():
            *whole, self.line = (self.line + text).split("\n")
            text = "".join(line.rsplit("\r", 1)[-1] + "\n" for line in whole)
        self.out.write(text)

    def flush(self):
        self.out.flush()


def run(path, parameters, store=False):
    """Execute one notebook. Returns (main result, None) if it ran to its last cell, else (None, what went wrong and where).

    The executed copy appears in figures/notebooks/ when it is whole; that of a failed run as NAME.failed.ipynb.
    """
    import papermill

    partial = EXECUTED / f".{path.stem}.{os.getpid()}.ipynb"
    failed = EXECUTED / f"{path.stem}.failed.ipynb"
    started = []  # ids of the cells that were begun
    try:
        notebook = papermill.execute_notebook(
            path, partial, parameters, kernel_name="python3", cwd=NOTEBOOKS, progress_bar=False, coalesce_streams=True,
            stdout_file=Live(sys.stdout), stderr_file=Live(sys.stderr), request_save_on_cell_execute=False,
            shutdown_kernel="immediate", on_cell_start=lambda cell, cell_index: started.append(cell.id),
        )  # fmt: skip
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        ran = sum(cell.execution_count is not None for cell in code)
        problem = None if ran == len(code) else f"ended early: {ran} of {len(code)} code cells ran"
    except papermill.PapermillExecutionError as error:
        problem = f"{error.ename}: {error.evalue}"
    except Exception as error:  # the kernel died, or did not start
        problem = f"{type(error).__name__}: {error}"
    except BaseException:  # Ctrl-C
        partial.unlink(missing_ok=True)
        raise
    if problem:
        if partial.exists():
            os.replace(partial, failed)
        ids = [cell.id for cell in read(path).cells]
        where = f"cell {ids.index(started[-1]) + 1}" if started and started[-1] in ids else "before the first cell"
        return None, f"{where}: {problem}"
    os.replace(partial, EXECUTED / path.name)
    failed.unlink(missing_ok=True)  # of an earlier run
    if store:
        store_outputs(notebook, path)
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    results = re.findall(f"^{MAIN_RESULT}(.*)$", printed, re.MULTILINE)
    return results[-1] if results else "", None


def finished(path, mark):
    """The main result of an earlier run with this fingerprint, if all that it wrote is still there; else None."""
    try:
        record = json.loads((EXECUTED / f"{path.stem}.json").read_text())
    except (OSError, ValueError):
        return None
    complete = record.get("fingerprint") == mark and all((ROOT / name).exists() for name in record["written"])
    return record["result"] if complete else None


def remember(path, mark, result, start):
    """Note what an ended run wrote, and clear away its checkpoints. start: when it began, as time.time()."""
    folder, executed = EXECUTED.parent / path.stem, EXECUTED / path.name
    written = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_mtime >= start]
    names = [str(file.relative_to(ROOT)) for file in [executed, *sorted(written)]]
    with whole(EXECUTED / f"{path.stem}.json") as partial:
        partial.write_text(json.dumps({"fingerprint": mark, "result": result, "written": names}, indent=1) + "\n")
    shutil.rmtree(checkpoints(path, mark), ignore_errors=True)


def checkpoints(path, mark):
    return EXECUTED.parent / "checkpoints" / f"{path.stem}-{mark}"


@contextlib.contextmanager
def alone(mark):
    """Yields whether no other process is at the same run."""
    place = provenance.short([str(ROOT), mark, os.getuid()])
    with open(Path(tempfile.gettempdir(), f"learn-resnets-{place}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def run_once(path, parameters, mark, options):
    """As run, unless another process is at the same run."""
    with alone(mark) as free:
        if not free:
            return None, "another run-all is at this notebook with the same options: wait for its end"
        if options.fresh:
            shutil.rmtree(checkpoints(path, mark), ignore_errors=True)
        os.environ["RESNET_FINGERPRINT"] = mark  # for the notebook's checkpoints
        try:
            return run(path, parameters, options.store)
        finally:
            del os.environ["RESNET_FINGERPRINT"]


def read(path):
    import nbformat

    return nbformat.read(path, as_version=4)


def store_outputs(executed, path):
    """Put the outputs of an executed copy into the notebook, whose text may have been edited meanwhile.

    Without the times that papermill notes, and without the outputs of cells tagged "timing": a new run then changes nothing else.
    """
    import nbformat

    notebook = read(path)
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        timing = "timing" in cell.metadata.get("tags", [])
        cell.execution_count, cell.outputs = number, [] if timing else outputs.get(cell.id, [])
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if "text" in output:  # what a progress bar has overwritten
                output.text = "\n".join(line.rsplit("\r", 1)[-1] for line in output.text.split("\n"))
        cell.outputs = [output for output in cell.outputs if output.get("text", "shown")]
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution", "widgets"):
            part.metadata.pop(key, None)
    with whole(path) as partial:
        nbformat.write(notebook, partial)


def main(arguments=None):
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell starts background jobs with Ctrl-C switched off
        signal.signal(number, signal.default_int_handler)
    try:
        notebooks = check(options)
    except (ValueError, OSError) as error:
        print(f"run-all: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # for the kernels
    os.environ["RESNET_PROGRESS"] = "off"  # a run is no attempt at an exercise
    parameters = {name: getattr(options, name.lower()) for name in PARAMETERS}
    table = [("notebook", "status", "time", "main result")]
    for path in notebooks:
        print(f"\n=== {path.stem} ===", flush=True)
        start, status = time.time(), "ok"
        mark = provenance.fingerprint(path, parameters)
        result, problem = None if options.fresh else finished(path, mark), None
        if result is not None:
            status = "ok, kept"
            print("unchanged since it last ran to its end: not run again")
            if options.store:
                store_outputs(read(EXECUTED / path.name), path)
        else:
            try:
                result, problem = run_once(path, parameters, mark, options)
            except KeyboardInterrupt:
                print(f"\nrun-all: interrupted in {path.relative_to(ROOT)}; its earlier results are untouched", file=sys.stderr)
                return 130
            status = "FAILED" if problem else "ok"
            if not problem:
                remember(path, mark, result, start)
        minutes, seconds = divmod(round(time.time() - start), 60)
        table.append((path.stem, status, f"{minutes}:{seconds:02d} min", (problem or result).partition("\n")[0]))
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    print()
    for name, status, spent, result in table:
        print(f"{name:{widths[0]}}  {status:{widths[1]}}  {spent:>{widths[2]}}  {result}")
    return int(any(row[1] == "FAILED" for row in table))


if __name__ == "__main__":
    sys.exit(main())
