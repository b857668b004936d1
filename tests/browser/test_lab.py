"""The notebooks in JupyterLab, as a learner meets them; `make test-browser`. Needs Debian's chromium and playwright.

The notebooks are copies, so nothing that is typed here is saved. Screenshots of what failed are kept in figures/browser/.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: apt-get install chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()

NOTEBOOK = "const panel = window.jupyterapp.shell.currentWidget, book = panel.content;"
CELL = "const index = book.widgets.findIndex(cell => cell.model.id === id), cell = book.widgets[index];"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab with the options of `make lab`; (its address, its token, its folder, in which `opened` puts the notebooks)."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    line = subprocess.run(["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    options = [word for word in line.split()[3:] if word.startswith("--") and not word.startswith("--notebook-dir")]
    runtime = folder / "runtime"
    environment = os.environ | {"RESNET_BUDGET": "smoke", "RESNET_DATA": "synthetic", "RESNET_PROGRESS": str(folder / "progress.json")}
    environment["JUPYTER_RUNTIME_DIR"] = str(runtime)
    command = [sys.executable, "-m", "jupyterlab", *options, f"--notebook-dir={folder}", "--no-browser", "--allow-root"]
    log = open(folder / "log", "w")
    process = subprocess.Popen([*command, "--expose-app-in-browser", "--port=0"], env=environment, stdout=log, stderr=log)
    for _ in range(120):
        found = list(runtime.glob("jpserver-*.json"))
        if found:
            break
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.5)
    info = json.loads(found[0].read_text())
    yield info["url"], info["token"], folder
    process.terminate()
    process.wait(20)
    log.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(server, browser, request):
    """A function that opens a notebook and returns the page."""
    address, token, folder = server
    pages = []

    def open_notebook(name):
        shutil.copy(ROOT / "notebooks" / name, folder / "notebooks")  # JupyterLab may have saved what an earlier test has typed
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        pages.append(page)
        page.goto(f"{address}lab/tree/notebooks/{name}?token={token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000
        )
        return page

    failed = request.session.testsfailed
    yield open_notebook
    for page in pages:
        if request.session.testsfailed > failed or getattr(request.node, "failed", False):
            place = ROOT / "figures" / "browser"
            place.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=place / f"{request.node.name}.png")
        page.evaluate(f"async () => {{ {NOTEBOOK} await panel.sessionContext.shutdown(); }}")
        page.close()


def run_all(page, limit=300):
    """Run All, and wait until every code cell has run."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    left = f"""() => {{ {NOTEBOOK} return book.widgets.filter(cell => cell.model.type === 'code' &&
        (!cell.model.executionCount || cell.promptNode?.textContent.includes('*'))).length; }}"""
    deadline = time.monotonic() + limit
    time.sleep(2)
    while count := page.evaluate(left):
        assert time.monotonic() < deadline, f"{count} cells have not run after {limit} s"
        time.sleep(1)


def outputs(page):
    """What all cells show, {cell id: list of outputs}."""
    return page.evaluate(
        f"() => {{ {NOTEBOOK} return Object.fromEntries(book.widgets.filter(cell => cell.model.type === 'code')"
        ".map(cell => [cell.model.id, cell.model.outputs.toJSON()])); }"
    )


def text_of(page, cell):
    return "".join(output.get("text", "") for output in outputs(page)[cell])


def all_plots_show(page):
    plots = [cell for cell, parts in outputs(page).items() if any("image/png" in part.get("data", {}) for part in parts)]
    assert plots
    for cell in plots:
        page.evaluate(f"id => {{ {NOTEBOOK} {CELL} book.scrollToItem(index, 'start'); }}", cell)
        page.wait_for_function(
            f"id => {{ {NOTEBOOK} {CELL} const image = cell.node.querySelector('.jp-OutputArea img'); return image?.naturalWidth > 300; }}",
            arg=cell,
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_shows_every_plot_and_no_error(opened, path):
    page = opened(path.name)
    run_all(page)
    shown = outputs(page)
    assert not [cell for cell, parts in shown.items() for part in parts if part["output_type"] == "error"]
    assert "Main result: " in str(shown)
    all_plots_show(page)


def test_a_solution_opens_with_a_click(opened):
    page = opened("02_residual_block.ipynb")
    page.evaluate(f"id => {{ {NOTEBOOK} {CELL} book.scrollToItem(index, 'center'); }}", "block-solution")
    hidden = page.locator(".jp-Placeholder-content", has_text="Solution – click to show").first
    hidden.wait_for(state="visible")
    assert "ResidualBlockSolution" not in page.locator(".jp-Notebook").inner_text()
    hidden.click()
    page.wait_for_function("() => document.querySelector('.jp-Notebook').innerText.includes('class ResidualBlockSolution')")


ANSWER = """class ResidualBlock(nn.Module):
    mine = True

    def __init__(self, i, o, stride=1):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.c2, self.b2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.s = nn.Identity() if (i, stride) == (o, 1) else nn.Conv2d(i, o, 1, stride, bias=False)

    def forward(self, x):
        r = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return RETURN"""


SOLVED = "residual_block: all right"


def type_and_run(page, cell, source=None):
    """Replace the source of a cell, as a learner does, and run it; returns what it prints."""
    page.evaluate(
        f"""async ([id, source]) => {{ {NOTEBOOK} {CELL}
        if (source !== null) cell.model.sharedModel.setSource(source);
        book.activeCellIndex = index; await window.jupyterapp.commands.execute('notebook:run-cell'); }}""",
        [cell, source],
    )
    return text_of(page, cell)


@pytest.fixture
def exercise(opened):
    """(the page of notebook 02, run(cell, source=None): run a cell, with another text if there is one; returns what the cell shows)."""
    page = opened("02_residual_block.ipynb")

    run = functools.partial(type_and_run, page)
    run("parameters"), run("imports")
    return page, run


def value(page, expression):
    """What an expression is in the kernel."""
    return page.evaluate(
        f"""async code => {{ {NOTEBOOK} const future = panel.sessionContext.session.kernel.requestExecute({{code}}); let text = '';
            future.onIOPub = message => {{ text += message.content.text ?? ''; }}; await future.done; return text; }}""",
        f"print({expression})",
    ).strip()


def test_a_wrong_block_gets_its_hint_and_a_right_one_is_used(exercise):
    page, run = exercise
    run("block-exercise", ANSWER.replace("RETURN", "F.relu(r) + self.s(x)"))
    shown = run("block-check")
    assert "✗" in shown and "can then never be negative" in " ".join(shown.split()) and "not yet: 5 of 8 hold" in shown
    red = page.locator(".jp-OutputArea-output [style*='215']", has_text="✗")
    assert red.count() == 1 and "ReLU(BN(conv" in red.inner_text()
    assert "the project's solution" in run("block-shapes")
    run("block-exercise", ANSWER.replace("RETURN", "F.relu(r + self.s(x))"))
    shown = run("block-check")
    assert "✗" not in shown and SOLVED in shown
    run("block-solution"), run("progress")
    assert "your own answer" in run("block-shapes")
    assert value(page, "ResidualBlock.mine") == "True"
    assert "✓ 2.1 residual_block" in text_of(page, "progress")


def test_the_solution_is_never_taken_for_an_answer(exercise):
    page, run = exercise
    run_all(page)
    all_plots_show(page)
    assert "not attempted yet" in text_of(page, "block-check") and "the project's solution" in text_of(page, "block-shapes")
    assert "this is the solution" in run("block-check")
    run("block-exercise", "class ResidualBlock(nn.Module):\n    def __init__(self:")
    assert "this is the solution" in run("block-check")
    run("block-exercise", ANSWER.replace("        return RETURN", "        raise NotImplementedError"))
    assert "NotImplementedError` is still there" in " ".join(run("block-check").split())


def test_an_error_in_the_cell_does_not_pass_and_a_change_is_said(exercise):
    page, run = exercise
    right = ANSWER.replace("RETURN", "F.relu(r + self.s(x))")
    run("block-exercise", right)
    assert SOLVED in run("block-check")
    run("block-exercise", right + ")")
    assert "still your earlier answer" in " ".join(run("block-check").split())
    run("block-exercise", right.replace("mine = True", "mine = False"))
    assert "It has changed since" in run("block-shapes") and value(page, "ResidualBlock.mine") == "True"


def test_out_of_order_and_after_a_restart(exercise):
    page, run = exercise
    assert "the project's solution" in run("block-shapes")  # neither the exercise nor its solution has run
    run("block-exercise", ANSWER.replace("RETURN", "F.relu(r + self.s(x))"))
    assert SOLVED in run("block-check")
    page.evaluate(f"async () => {{ {NOTEBOOK} await panel.sessionContext.session.kernel.restart(); }}")
    run("parameters"), run("imports")
    assert "the project's solution" in run("block-shapes")
    assert "✓ 2.1 residual_block" in run("progress")  # that lasts


def test_three_cases_are_solved_and_nonsense_stops_nothing(opened):
    page = opened("07_break_it.ipynb")
    for cell in ("parameters", "imports", "lab"):
        type_and_run(page, cell)
    cases = (  # number, instrument, wrong diagnosis, right diagnosis, what is mended
        (1, "look_at_labels", "labels shuffled", "data sorted", (
            "        for start in range(0, len(self.labels), self.batch_size):\n            rows = slice(start, start + self.batch_size)\n",
            "        n = len(self.labels)\n        order = torch.randperm(n) if self.training else torch.arange(n)\n"
            "        for rows in order.split(self.batch_size):\n",
        )),
        (8, "update_ratios", None, "learning rate", ("rate = 1.0", "rate = 0.01")),
        (12, "shape_trace", None, "not as described", ("range(1, blocks - 1)", "range(1, blocks)")),
    )  # fmt: skip
    for number, instrument, wrong, right, (old, new) in cases:
        case, cells = f"case{number}", f"case{number:02}"
        assert f"{number}" in type_and_run(page, f"{cells}-open") and "epoch 6" in text_of(page, f"{cells}-open")
        assert "not attempted yet" in type_and_run(page, f"{cells}-diagnosis") + type_and_run(page, f"{cells}-mend")
        assert f"{case[:4]} {number}: {instrument} cost" in type_and_run(page, f"{cells}-measure", f"{case}.{instrument}()")
        if wrong:
            said = type_and_run(page, f"{cells}-diagnosis", f'{case}.diagnose("{wrong}", "{instrument}")\n{case}.open()')
            assert "does not explain" in said and "sealed" in said and "class" not in said
        said = type_and_run(page, f"{cells}-diagnosis", f'{case}.diagnose("{right}", "{instrument}")\n{case}.open()')
        assert f"right, at try {2 if wrong else 1}" in said
        code = said.partition("\n")[2]
        name = code.split("(")[0].split()[1].rstrip(":")
        assert "✗" in type_and_run(page, f"{cells}-mend", f"{code}\n\n{case}.mend({name})") and old in code
        said = type_and_run(page, f"{cells}-mend", f"{code.replace(old, new)}\n\n{case}.mend({name})")
        assert "mended: all" in said, said
    page.evaluate(f"async () => {{ {NOTEBOOK} await panel.sessionContext.session.kernel.restart(); }}")  # what was reached is kept
    for cell, source in (
        ("case09-measure", "case9.nothing()"),
        ("case09-diagnosis", "case9.diagnose(1 / 0)"),
        ("case09-mend", "def fit(:"),
    ):
        page.evaluate(f"([id, source]) => {{ {NOTEBOOK} {CELL} cell.model.sharedModel.setSource(source); }}", [cell, source])
    run_all(page)
    failed = [cell for cell, parts in outputs(page).items() for part in parts if part["output_type"] == "error"]
    assert failed == ["case09-measure", "case09-diagnosis", "case09-mend"]
    assert "3 of 16 cases solved" in text_of(page, "score") and "Main result: " in text_of(page, "result")
    assert "right at try 2" in text_of(page, "score")
