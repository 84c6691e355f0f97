"""Links to the repository follow one setting, ``repository.url`` in ``_config.yml``; while it is empty there are none.

Jupyter Book's own options cannot do this: a button without an address ends its build, and ``sphinx.config`` replaces the theme
options that it makes of ``repository`` and ``html``. Two roles for prose: ``{source}`FOLDER/FILE` `` names a file and links to it,
``{binder}`NOTEBOOK` `` offers to run a notebook on Binder, and vanishes where it could not.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxRole


def settings(folder: str | Path) -> tuple[str, str]:
    """(address without a slash at its end, or "", branch)."""
    found = yaml.safe_load((Path(folder) / "_config.yml").read_text(encoding="utf-8")).get("repository") or {}
    return (found.get("url") or "").rstrip("/"), found.get("branch") or "main"


class Source(SphinxRole):
    def run(self):
        url, branch = settings(self.env.srcdir)
        name = nodes.literal(self.rawtext, self.text)
        return [nodes.reference(self.rawtext, "", name, refuri=f"{url}/blob/{branch}/{self.text}") if url else name], []


class Binder(SphinxRole):
    def run(self):
        url, branch = settings(self.env.srcdir)
        if not url.startswith("https://github.com/"):
            return [], []
        owner = url.removeprefix("https://github.com/")
        address = f"https://mybinder.org/v2/gh/{owner}/{branch}?labpath={self.text}"
        return [nodes.Text("· "), nodes.reference(self.rawtext, "run it on Binder", refuri=address), nodes.Text(" ")], []


def _buttons(app, config):
    url, branch = settings(app.srcdir)
    if url:
        config.html_theme_options |= {
            "repository_url": url, "repository_branch": branch, "use_repository_button": True, "use_issues_button": True,
        }  # fmt: skip


def setup(app):
    app.add_role("source", Source())
    app.add_role("binder", Binder())
    app.connect("config-inited", _buttons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
