"""Jupyter Book always loads sphinx-thebe, which declares its settings twice on every page: an error in the browser's console.

The book has no live cells, so both declarations go.
"""

from __future__ import annotations


def _drop(app, pagename, templatename, context, doctree):
    scripts = context.get("script_files", [])
    scripts[:] = [s for s in scripts if "THEBE_JS_URL" not in str(getattr(s, "attributes", {}).get("body", ""))]


def setup(app):
    app.connect("html-page-context", _drop, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
