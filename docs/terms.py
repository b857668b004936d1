"""Links from texts to the glossary, made when the site is built: the texts stay readable in JupyterLab and on GitHub."""

import re
from pathlib import Path

TERMS = re.findall(r"^(\S.*)\n  \S", (Path(__file__).parent / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
EVERYDAY = {"bottleneck", "rank"}  # these words also have another sense: they are linked only where they are emphasised
# Where nothing is linked: headings, answers that are folded, code, HTML, formulas, links.
APART = (
    r"^#[^\n]*|<details>.*?</details>|(?P<tick>`+).+?(?P=tick)|^(?: {4}|[:`]{3})[^\n]*|^<.*?(?:\n\n|\Z)|<[^>\n]+>|\$\$.+?\$\$|\$[^$]+\$"
    r"|!?\[[^\]]*\](?:\([^)]*\))?"
)


def link(texts, terms=TERMS):
    """The texts of a page, in Markdown, with a link to the glossary for each term: where the term is first emphasised, else first written.

    A summary's "- **Term**: …" introduces nothing, so it does not count as emphasised.
    """
    texts = list(texts)
    for term in sorted(terms, key=len, reverse=True):  # "residual block" before a term that is part of it
        word = rf"(?P<term>{re.escape(term.removesuffix('s'))}s?)".replace(r"\ ", r"\s+")
        for place in (rf"(?<!- \*\*)(?<=\*){word}(?=\*)", rf"(?<![\w-]){word}(?![\w-])")[: 1 if term in EVERYDAY else 2]:
            pattern = re.compile(f"{APART}|{place}", re.IGNORECASE | re.MULTILINE | re.DOTALL)
            first = next(((n, m) for n, text in enumerate(texts) for m in pattern.finditer(text) if m["term"]), None)
            if first:
                number, found = first
                before, after = found.string[: found.start()], found.string[found.end() :]
                texts[number] = f"{before}{{term}}`{' '.join(found['term'].split())} <{term}>`{after}"
                break
    return texts
