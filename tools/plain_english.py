"""
Count stilted phrases in docstrings and comments.

Usage: ``python tools/plain_english.py PATH...`` prints each sentence with such a phrase, and the fraction of sentences.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

PHRASES = re.compile(
    r"of which the|of which an?|to be had|foretel|\btold\b|\btells?\b|\blest\b|\bbesides\b|none is"
    r"|what (came|comes|goes|lies|was|is|it|there) ",
    re.IGNORECASE,
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sentences(source):
    """Return the sentences of the docstrings and comments of Python source."""
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    for before, token in zip([None, *comments], comments, strict=False):
        text = token.string.lstrip("#: ")
        # Comments of several lines are one text
        if before and before.start == (token.start[0] - 1, token.start[1]):
            texts[-1] += " " + text
        else:
            texts.append(text)
    parts = [part for text in texts for part in re.split(r"(?<=[.!?:])\s+|\n\s*\n", text)]
    return [" ".join(part.split()) for part in parts if re.search(r"[A-Za-z]{2}", part)]


def stilted(folders):
    """Return the stilted sentences below some folders, with their files, and the number of all sentences."""
    found, n = [], 0
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
        # This file contains the phrases
        if path.name == Path(__file__).name:
            continue
        for sentence in sentences(path.read_text(encoding="utf-8")):
            n += 1
            if PHRASES.search(sentence):
                found.append((path, sentence))
    return found, n


if __name__ == "__main__":
    matches, total = stilted(sys.argv[1:] or ["sunpy_deepem", "tests", "benchmarks", "tools", "examples", "docs"])
    for name, sentence in matches:
        print(f"{name}: {sentence}")
    print(f"{len(matches)} of {total} sentences, {len(matches) / max(total, 1):.1%}")
