"""Equations as MathML, made when the book is built: no script, no network, readable by screen readers."""

from __future__ import annotations

from latex2mathml.converter import convert


def _inline(self, node):
    from docutils import nodes

    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self, node):
    from docutils import nodes

    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    self.body.append(f'<div class="math">{number}{convert(node.astext(), display="block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
