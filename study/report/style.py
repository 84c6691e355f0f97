"""The look of every figure: one colour per method, readable on light and on dark pages, deterministic
bytes.
"""

from __future__ import annotations

import base64
import html
import io
import zlib
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from reprolib.places import results_dir
from reprolib.recipes import recipe
from study.readings.twin import family

INK = "#7b7b7b"  # contrast of about 4.2 on white and on #121212 alike
GRID = "#9b9b9b40"

# Okabe-Ito, which people with the common colour-vision deficiencies can tell apart, as far as its eight
# colours go. There are more families than that: the others lie between, with enough contrast on white and on
# black, and colour never stands alone: members of a family differ by marker, and every figure of many methods
# names them at the axis.
COLOURS = {  # the ladder, and methods with a colour of their own
    "target": "#6f6f6f",
    "twin": "#009E73",
    "random": "#7d7d7d",
    "always_eos": "#959595",
    "gradient_ascent": "#D55E00",
    "gradient_descent": "#56B4E9",
    "gradient_difference": "#E69F00",
    "npo": "#CC79A7",
}

FAMILIES = {  # every other method has its family's colour
    "likelihood": "#D55E00",
    "preference": "#CC79A7",
    "weighting": "#0072B2",
    "distillation": "#A6761D",
    "representation": "#9B5DE5",
    "second order": "#C1272D",
    "chains": "#7D8B1F",
    "localised": "#5A5FCF",
    "weights": "#B5179E",
    "competition": "#B39A00",
    "inference": "#2A9D9D",
    "baseline": "#7d7d7d",
}

MARKERS = {
    "target": "s",
    "twin": "*",
    "random": "X",
    "always_eos": "P",
    "gradient_ascent": "^",
    "gradient_descent": "v",
    "gradient_difference": "D",
    "kl_minimisation": "p",
    "ihl": "s",
    "npo": "o",
    "simnpo": "s",
    "idk_nll": "<",
    "idk_dpo": ">",
    "alt_po": "d",
    "wga": "o",
    "satimp": "s",
    "undial": "o",
    "ce_u": "D",
    "pdu": "^",
    "whp": "s",
    "rmu": "o",
    "adaptive_rmu": "D",
    "libu": "o",
    "libu_influence": "s",
    "libu_sophia": "^",
    "so_gradient_difference": "D",
    "so_po": "<",
    "so_npo": "p",
    "chain_ga_gd": "^",
    "chain_ga_gd_ga": "v",
    "chain_difference_ga": "D",
    "fila": "o",
    "loku": "s",
    "vila_difference": "D",
    "vila_ihl": "^",
    "vila_npo": "p",
    "task_vector": "o",
    "sugd": "o",
    "agad": "s",
    "sha256": "D",
    "zjuklab": "^",
    "assistant": (6, 1, 0),
    "prompt_routing": "v",
    "noise": "h",
    "random_labels": "p",
}

# Methods from outside the tree: colours and markers that no method of the tree has, picked by the name alone.
RESERVE_COLOURS = ("#8C564B", "#4F7A52", "#5C7090", "#A15C86")

RESERVE_MARKERS = (
    (3, 1, 0),
    (3, 1, 180),
    (7, 0, 0),
    (7, 1, 0),
    (8, 1, 0),
    (9, 1, 0),
    (4, 1, 0),
    (5, 0, 180),
    (10, 0, 0),
)


def colour(method: str) -> str:
    """The method's own colour, or its family's; a stable one from the reserve for methods from outside the
    tree.
    """
    return COLOURS.get(method) or FAMILIES.get(family(method)) or _reserve(method)[0]


def marker(method: str) -> Any:
    """The method's marker: with the colour, a pair that no other method of the tree has."""
    return MARKERS.get(method) or _reserve(method)[1]


def _reserve(method: str) -> tuple[str, Any]:
    """A pair that depends on the name alone. Two names may share one only if their hashes agree modulo 36."""
    n = zlib.crc32(method.encode()) % (len(RESERVE_COLOURS) * len(RESERVE_MARKERS))
    return RESERVE_COLOURS[n % len(RESERVE_COLOURS)], RESERVE_MARKERS[n // len(RESERVE_COLOURS)]


def label(method: str) -> str:
    return recipe(method).card.label


def use() -> None:
    """Set matplotlib's parameters for the book."""
    mpl.rcParams.update(
        {
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "savefig.transparent": True,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": INK,
            "axes.titlecolor": INK,
            "legend.labelcolor": INK,
            "legend.frameon": False,
            "grid.color": GRID,
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 11,
            "legend.fontsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "path",
            "svg.hashsalt": "reprolib",
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
        }
    )


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
    # a narrow screen scrolls the image sideways, and not its caption
    return HTML(f'<figure class="result"><div class="scrolls" tabindex="0">{image}</div>{text}</figure>')


def save(fig: Any, name: str, alt: str) -> None:
    """Write ``results/figures/<name>.svg`` and ``.png`` (white ground, for places without the book), and the
    alt text.
    """
    folder = results_dir() / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_bytes(svg(fig))
    fig.savefig(
        folder / f"{name}.png", dpi=110, facecolor="white", transparent=False, metadata={"Software": None}
    )
    (folder / f"{name}.txt").write_text(alt + "\n", encoding="utf-8")
