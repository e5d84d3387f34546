#!/usr/bin/env python3
"""Each relative link of each Markdown file leads to a file that is there, and docs/README.md lists every page of docs/.

    doc_links_test.py ROOT
"""
import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^)\s]+)\)")


def pages(root):
    skipped = {"build", ".git"}
    for path in sorted(root.rglob("*.md")):
        if not skipped & set(path.relative_to(root).parts):
            yield path


def anchors(path):
    """The names that GitHub gives the headings of a page."""
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            text = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(text.replace(" ", "-"))
    return found


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    problems, count, listed = [], 0, set()
    for page in pages(root):
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for link in LINK.findall(line):
                if re.match(r"[a-z]+:", link):
                    continue
                count += 1
                where = f"{page.relative_to(root)}:{number}"
                name, _, anchor = link.partition("#")
                target = (page.parent / name).resolve() if name else page
                if page == root / "docs" / "README.md":
                    listed.add(target)
                if not target.exists():
                    problems.append(f"{where}: {link}: there is no such file")
                elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                    problems.append(f"{where}: {link}: there is no such heading")
    for page in sorted((root / "docs").glob("*.md")):
        if page.name != "README.md" and page not in listed:
            problems.append(f"docs/README.md:1: does not list {page.name}")
    for problem in problems:
        print(problem)
    print(f"{count} links read, {len(problems)} broken")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
