"""The site in a browser, as a visitor meets it, served from this machine; `make test-browser`. Built anew by `make site`.

Screenshots at the width of a phone and of a desk, light and dark, are kept in figures/browser/ to be looked at.
"""

import functools
import http.server
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "site"
CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(not (ROOT / ".venv-site" / "installed").exists(), reason="the packages of the site are not installed: make site"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1366, "height": 900}


@pytest.fixture(scope="module")
def address():
    """Of the site, built anew, on a server of this machine."""
    made = subprocess.run(["make", "site"], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert made.returncode == 0, made.stdout + made.stderr

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *parts):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A page that notes what goes wrong; at the end of the test, nothing may have gone wrong."""
    page = browser.new_page(viewport=DESK)
    wrong = []
    page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"{page.url}: {request.url} failed: {request.failure}"))
    page.on("response", lambda answer: wrong.append(f"{page.url}: {answer.url} is {answer.status}") if answer.status >= 400 else None)
    own = (address, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(f"{page.url} asks for {request.url}"))
    yield page
    page.close()
    assert not wrong, "\n".join(wrong)


def html_pages():
    return sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)


def look(page):
    """What a page links to, which places it has, and what it lacks."""
    return page.evaluate(
        """() => ({
            links: [...document.querySelectorAll('a[href]')].map(link => link.href),
            places: [...document.querySelectorAll('[id], a[name]')].map(place => place.id || place.name),
            unnamed: [...document.querySelectorAll('img')].filter(i => !(i.getAttribute('alt') ?? '').trim()).map(i => i.src),
            broken: [...document.querySelectorAll('img')].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
            formulas: document.querySelectorAll('mjx-container').length,
            unset: document.querySelectorAll('.math').length,
            headings: document.querySelectorAll('article h1').length,
        })"""
    )


def test_every_page_and_every_link_works(page, address):
    found, left = {}, [urljoin(address, "index.html")]
    while left:
        url = left.pop()
        if url in found:
            continue
        page.goto(url)
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container", timeout=20_000)
        found[url] = look(page)
        for link in found[url]["links"]:
            target = urldefrag(link).url.partition("?")[0]
            if target.startswith(address) and target.endswith((".html", "/")):
                left.append(target + "index.html" * target.endswith("/"))
    names = {url.removeprefix(address) for url in found}
    pages = {path.relative_to(SITE).as_posix() for path in html_pages()}
    assert pages - names <= {"genindex.html", "py-modindex.html", "search.html"}, pages - names
    wrong = []
    for url, seen in found.items():
        name = url.removeprefix(address)
        wrong += [f"{name}: no alternative text for {source}" for source in seen["unnamed"]]
        wrong += [f"{name}: {source} does not show" for source in seen["broken"]]
        wrong += [f"{name}: {seen['headings']} main headings"] * (seen["headings"] != 1)
        wrong += [f"{name}: formulas are not set"] * (seen["unset"] > 0 and not seen["formulas"])
        for link in filter(lambda link: link.startswith(address), seen["links"]):
            target, place = urldefrag(link)
            target = target.partition("?")[0] + "index.html" * target.endswith("/")
            if target in found:
                known = found[target]["places"]
                wrong += [f"{name}: no #{place} in {target}"] * bool(place and unquote(place) not in known)
            elif not (SITE / unquote(target.removeprefix(address))).is_file():
                wrong.append(f"{name}: {link} leads nowhere")
    assert not wrong, "\n".join(wrong)


def test_next_leads_through_all_notebooks(page, address):
    page.goto(address + "index.html")
    passed = []
    for _ in range(60):
        step = page.locator("a.right-next")
        if not step.count():
            break
        step.first.click()
        page.wait_for_load_state()
        passed.append(page.url.removeprefix(address).partition("#")[0])
    names = sorted(f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert passed[: len(names)] == names and "contributing.html" in passed
    page.locator("a.left-prev").first.click()
    page.wait_for_load_state()
    assert page.url.startswith(address + passed[-2].partition("#")[0])


def test_a_solution_is_folded_and_opens_with_a_click(page, address):
    page.goto(address + "notebooks/02_residual_block.html")
    folded = page.locator("details", has_text="Solution – click to show").first
    code = folded.locator(".highlight").first
    assert "ResidualBlockSolution" in code.text_content() and not code.is_visible()
    folded.locator("summary").first.focus()
    page.keyboard.press("Enter")  # by keyboard
    code.wait_for(state="visible")
    folded.locator("summary").first.click()
    code.wait_for(state="hidden")


def test_search_finds_a_notebook(page, address):
    page.goto(address + "search.html?q=degradation")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    links = page.locator("#search-results li a")
    assert any("02_residual_block" in (links.nth(i).get_attribute("href") or "") for i in range(links.count()))
    links.first.click()
    page.wait_for_load_state()
    assert "degradation" in page.locator("article").inner_text().lower()
    page.goto(address + "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("shortcut")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=shortcut*")


def test_the_menu_and_the_colours_work_on_a_phone(page, address):
    page.set_viewport_size(PHONE)
    page.goto(address + "notebooks/05_preactivation.html")
    entry = page.locator(".bd-sidebar-primary, #pst-primary-sidebar-modal").get_by_role("link", name="Glossary").last
    assert not entry.is_visible()
    page.locator("article, .bd-header-article").locator(".primary-toggle").first.click()
    entry.click()
    page.wait_for_url("**/glossary.html")
    page.wait_for_load_state()
    for colours in ("dark", "light"):
        page.locator(".theme-switch-button").filter(visible=True).first.click()
        page.locator(f".dropdown-menu.show [data-mode={colours}]").first.click()
        assert page.evaluate("document.documentElement.dataset.theme") == colours


@pytest.fixture
def playground(page, address):
    """The page of the playground with its network loaded."""
    page.goto(address + "playground.html")
    page.get_by_role("button", name="Load the network").click()
    page.locator(".playground-parts").wait_for(state="visible", timeout=60_000)
    return page


def gated_scores(model, image, layers, shortcuts):
    """PyTorch's scores of an image (height, width, 3), with the gates of the page for the layers and the shortcut of each block."""
    import torch

    x = model.stem(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    blocks = [block for stage in model.stages for block in stage]
    for block, inside, around in zip(blocks, layers, shortcuts, strict=True):
        residual = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        x = (inside * residual + around * block.shortcut(x)).relu()
    return model.head(x)[0].tolist()


def test_the_scores_of_the_playground_are_those_of_pytorch(playground):
    import numpy as np
    import torch
    from PIL import Image

    from utils import models

    model = models.load("resnet20-cifar10")
    samples = np.array(Image.open(ROOT / "docs" / "_static" / "samples.png").convert("RGB"))
    on = [1] * 9
    rng = np.random.default_rng(0)
    settings = [(on, on), *((on[:n] + [0] + on[n + 1 :], on) for n in (0, 3, 4, 8)), (on, [0] * 9)]
    settings += [(rng.integers(0, 2, 9).tolist(), rng.integers(0, 2, 9).tolist()) for _ in range(4)]
    for number, (layers, shortcuts) in enumerate(settings):
        sample = number % 10
        asked = "async ([n, l, s]) => { const p = window.playground; await p.sample(n); await p.set(l, s); return p.scores(); }"
        found = playground.evaluate(asked, [sample, layers, shortcuts])
        with torch.no_grad():
            image = np.ascontiguousarray(samples[:, 32 * sample : 32 * sample + 32])
            expected = gated_scores(model, image, layers, shortcuts)
            if layers == shortcuts == on:  # the gates change nothing where all are open
                whole = model(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)[0].tolist()
                assert expected == pytest.approx(whole, abs=1e-5)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-3), (sample, layers, shortcuts)


def test_the_playground_answers_to_clicks_and_takes_an_own_picture(playground, tmp_path):
    from PIL import Image

    answer = playground.locator("[data-answer]")

    def changes(act):
        before = playground.locator("[data-scores]").inner_text()
        act()
        playground.wait_for_function("old => document.querySelector('[data-scores]').innerText !== old", arg=before)
        return answer.inner_text()

    assert " % sure" in answer.inner_text()
    whole = playground.locator("[data-scores]").inner_text()
    changes(playground.get_by_label("Layers of block 2.1").uncheck)
    assert not playground.get_by_label("Layers of block 2.1").is_checked()
    changes(playground.get_by_role("button", name="Remove all shortcuts").click)
    assert playground.get_by_label("Layers of block 2.1").is_checked() and not playground.get_by_label("Shortcut of block 3.3").is_checked()
    changes(playground.get_by_role("button", name="Everything on").click)
    assert playground.locator("[data-scores]").inner_text() == whole
    changes(playground.get_by_role("button", name="Sample: ship").click)
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "red.png")
    changes(lambda: playground.set_input_files("[data-file]", tmp_path / "red.png"))
    assert playground.evaluate("[...document.querySelector('#playground canvas').getContext('2d').getImageData(16, 16, 1, 1).data]") == [
        200,
        30,
        30,
        255,
    ]
    (tmp_path / "text.png").write_text("no picture")
    playground.set_input_files("[data-file]", tmp_path / "text.png")
    playground.get_by_text("not a picture that the browser can read").wait_for()
    place = ROOT / "figures" / "browser"
    place.mkdir(parents=True, exist_ok=True)
    for name, screen in (("desk", DESK), ("phone", PHONE)):
        playground.set_viewport_size(screen)
        assert playground.evaluate("document.documentElement.scrollWidth") <= screen["width"]
        playground.screenshot(path=place / f"site-playground-loaded-{name}.png", full_page=True)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_fit_the_screen(browser, address, screen, colours):
    """Nothing sticks out to the side; the screenshots are for people."""
    page = browser.new_page(viewport=screen, color_scheme=colours)
    place = ROOT / "figures" / "browser"
    place.mkdir(parents=True, exist_ok=True)
    wide = []
    for path in html_pages():
        name = path.relative_to(SITE).as_posix()
        page.goto(address + name)
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container", timeout=20_000)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > screen["width"]:
            wide.append(f"{name}: {width}")
        if name in SHOWN:
            page.screenshot(path=place / f"site-{path.stem}-{screen['width']}-{colours}.png")
    page.close()
    assert not wide, wide


SHOWN = ("index.html", "gallery.html", "playground.html", "glossary.html", "notebooks/07_break_it.html", "notebooks/05_preactivation.html")
