"""The site, made by Sphinx from the executed notebooks; `make site`. What it needs beyond these pages, prepare.py makes first."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import prepare  # noqa: E402
import terms  # noqa: E402

project = "Learn residual networks"
html_title = project
copyright = "the authors of Learn residual networks, MIT licence"
exclude_patterns = ["_build", "_generated", "web"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design", "sphinx_copybutton"]

# ---- notebooks: never run here, shown as they are stored ----
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "misc.highlighting_failure",  # a cell may begin with % or !
    "mystnb.unknown_mime_type",
]

# ---- the API: read from the docstrings, without torch ----
autodoc_mock_imports = ["filelock", "matplotlib", "papermill", "tensorboard", "torch", "torchvision", "tqdm"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
add_module_names = False

# ---- looks ----
html_theme = "sphinx_book_theme"
html_static_path = ["_static", "_generated/static"]
html_css_files = ["site.css"]
html_favicon = html_logo = "_static/icon.svg"
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # light or dark as the visitor's system is
pygments_style = "a11y-high-contrast-light"
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_end": [],  # the bar stays empty: a button in it would take the menu away from the one above the text
    "navbar_persistent": [],
    "navigation_with_keys": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "show_toc_level": 2,
    "footer_content_items": ["copyright"],
    "use_download_button": True,
} | prepare.repository_options()
copybutton_exclude = ".linenos, .gp, .go"

# Formulas are set in the page by a copy of MathJax that is shipped with it: no other host is asked.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


def as_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code` in it. Sphinx reads reStructuredText: protect what that would take for markup."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        lines[number] = "".join(
            f"`{part}`" if index % 2 else re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for index, part in enumerate(parts)
        )
    # A line such as "depth: …" continues the text before it; a paragraph of its own reads better than one long line.
    for number in range(len(lines) - 1, 0, -1):
        if re.match(r"[a-z_]+(?:, [a-z_]+)*: ", lines[number]) and lines[number - 1].strip():
            lines.insert(number, "")
        elif re.match(r" +\S", lines[number]) and not lines[number - 1].strip():  # an indented part is code
            lines[number:number] = ["::", ""]


def for_the_site(app, page, content):
    """Pages of docs/ have links that work in the repository, and no links to the glossary: make those of the site."""
    if "/" not in page and page != "glossary":
        content[0] = terms.link([prepare.links(content[0], "docs")])[0]


def setup(app):
    prepare.everything()
    app.connect("source-read", for_the_site)
    app.connect("autodoc-process-docstring", as_text)
