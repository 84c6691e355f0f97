"""The look of every figure: one colour per method, readable on light and on dark pages, deterministic bytes."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from reprolib.record import results_dir

INK = "#7b7b7b"  # contrast of about 4.2 on white and on #121212 alike
GRID = "#9b9b9b40"
# Okabe-Ito, which people with the common colour-vision deficiencies can tell apart
COLOURS = {
    "target": "#6f6f6f",
    "twin": "#009E73",
    "random": "#7d7d7d",
    "always_eos": "#959595",
    "gradient_ascent": "#D55E00",
    "gradient_descent": "#56B4E9",
    "gradient_difference": "#E69F00",
    "npo": "#CC79A7",
}
MARKERS = {
    "target": "s", "twin": "*", "random": "X", "always_eos": "P",
    "gradient_ascent": "^", "gradient_descent": "v", "gradient_difference": "D", "npo": "o",
}  # fmt: skip
SPARE = ("#0072B2", "#F0E442", "#882255", "#44AA99", "#DDCC77", "#AA4499")


def colour(method: str) -> str:
    """The method's colour; a stable one from a reserve for methods from outside the tree."""
    return COLOURS.get(method) or SPARE[sum(map(ord, method)) % len(SPARE)]


def marker(method: str) -> str:
    return MARKERS.get(method, "h")


def label(method: str) -> str:
    from reprolib.recipes import recipe

    return recipe(method).card.label


def use() -> None:
    """Set matplotlib's parameters for the book."""
    mpl.rcParams.update(
        {
            "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
            "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK,
            "axes.titlecolor": INK, "legend.labelcolor": INK, "legend.frameon": False, "grid.color": GRID,
            "font.size": 11, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.labelsize": 11, "legend.fontsize": 10,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "figure.constrained_layout.use": True, "svg.fonttype": "path", "svg.hashsalt": "reprolib",
            "lines.linewidth": 1.8, "lines.markersize": 6,
        }
    )  # fmt: skip


def svg(fig: Any) -> bytes:
    """The figure as SVG; equal figures give equal bytes."""
    out = io.BytesIO()
    fig.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def show(fig: Any, alt: str, caption: str = "") -> Any:
    """The figure for a page, with a text for those who cannot see it; closes the figure."""
    from IPython.display import HTML

    data = base64.b64encode(svg(fig)).decode()
    plt.close(fig)
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(alt, quote=True)}">'
    return HTML(f'<figure class="result">{image}{text}</figure>')


def save(fig: Any, name: str, alt: str) -> None:
    """Write ``results/figures/<name>.svg`` and ``.png`` (white ground, for places without the book), and the alt text."""
    folder = results_dir() / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_bytes(svg(fig))
    fig.savefig(folder / f"{name}.png", dpi=110, facecolor="white", transparent=False, metadata={"Software": None})
    (folder / f"{name}.txt").write_text(alt + "\n", encoding="utf-8")
