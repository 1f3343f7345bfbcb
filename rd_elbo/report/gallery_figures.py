"""Figures 4, 5 and 6 of Alemi et al. 2018, drawn from gallery.csv and gallery.npz alone."""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Rectangle

from rd_elbo import disk
from rd_elbo.data.dataset import title
from rd_elbo.errors import BadInput, choice, number
from rd_elbo.report.gallery import GALLERY_COLUMNS
from rd_elbo.report.style import STYLE, drawing, new_figure, save
from rd_elbo.sweep import tables
from rd_elbo.sweep.grid import FIELDS

Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

# Panels of each figure, row by row.
_LAYOUT: dict[int, tuple[tuple[str, ...], ...]] = {
    4: (("a", "b"), ("c", "d")),
    5: (("a",), ("b",)),
    6: (("a",), ("b",)),
}
_PARTS = {"reconstruction": "reconstructions", "sample": "samples"}
# Image pixels between images, between models, and after the data.
_THIN, _WIDE, _DATA = 2, 6, 10
_GAP_AFTER = {"data": _DATA, "sample": _THIN, "average": _WIDE}
# Inches: the widest figure, the largest image, the smallest (heads of neighbours must not touch),
# and what is around images.
_WIDEST, _LARGEST_IMAGE, _SMALLEST_IMAGE = 8.2, 0.42, 0.27
_NARROWEST = 3.3
_TITLE, _LINE, _PAD, _CAPTION = 0.2, 0.115, 0.12, 0.28
_CHARACTER = 0.066  # of a panel's title
_GAP = (0.22, 0.26)  # columns, rows of panels
_TITLE_SIZE, _HEAD_SIZE, _SMALL_SIZE, _CAPTION_SIZE = 8.0, 6.5, 5.0, 6.0
# Names of objectives in few letters; others are written out.
_SYMBOLS = {
    "beta": r"$\beta$",
    "target_rate": r"$\sigma$",
    "target_distortion": "$D^*$",
    "free_bits": "free",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """Images to be drawn beside each other.

    Attributes:
      title: Title of the panel.
      first: First of the panel's rows in the table.
      heads: Lines of text above each model.
      image: (height, width) grey levels, or (height, width, 3) colours, 0 to 1; NaN between images.
      tile: (height, width) of one of the images in it.
      columns: The middle of each column of images, in pixels of `image`.
      labels: Name of each of these columns.
      models: The middle of each model's pair of columns.
    """

    title: str
    first: Row
    heads: list[list[str]]
    image: np.ndarray
    tile: tuple[int, int]
    columns: list[float]
    labels: list[str]
    models: list[float]

    @property
    def lines(self) -> int:
        """Lines of text above the images, those that name columns included."""
        return max(map(len, self.heads)) + 1


def panel(rows: Sequence[Row], arrays: Arrays, aligned: bool = False) -> Panel:
    """Lay out one panel.

    It has "data" where images are reconstructed, then "sample" and "average" of every model.

    Args:
      rows: Rows of gallery.csv with this figure and panel.
      arrays: Arrays of gallery.npz.
      aligned: Whether samples, which have no data, leave room for them.
    """
    rows = sorted(rows, key=lambda row: row["position"])
    part = rows[0]["part"]
    of_member = dict(zip(arrays["member"].tolist(), arrays[part], strict=True))
    columns: list[tuple[str, np.ndarray]] = []
    if part == "reconstruction":
        columns.append(("data", arrays["data"]))
    for row in rows:
        draws = of_member[_parameters(row)]
        columns += [("sample", draws[0]), ("average", average(draws))]
    examples, height, width, *colours = arrays["data"].shape
    low, high = arrays.get("range", (0.0, 1.0))
    spread = float(high - low) or 1.0
    left = width + _DATA if aligned and part != "reconstruction" else 0
    labels = [label for label, _ in columns]
    widths = (width + _GAP_AFTER[label] for label in labels[:-1])
    at = list(itertools.accumulate(widths, initial=left))
    canvas = np.full((examples * (height + _THIN) - _THIN, at[-1] + width, *colours), np.nan)
    for start, (_, images) in zip(at, columns, strict=True):
        for i, image in enumerate(images):
            top = i * (height + _THIN)
            # Draws of real values may lie outside those of the data.
            scaled = np.clip((image - low) / spread, 0, 1)
            canvas[top : top + height, start : start + width] = scaled
    firsts = [start for start, label in zip(at, labels, strict=True) if label == "sample"]
    return Panel(
        title=_title(rows),
        first=rows[0],
        heads=[_head(row) for row in rows],
        image=canvas,
        tile=(height, width),
        columns=[start + width / 2 for start in at],
        labels=labels,
        models=[start + width + _THIN / 2 for start in firsts],
    )


def _parameters(row: Row) -> str:
    """The name that gallery.npz has for the parameters of a row."""
    return tables.params_name(str(row["member"]), tables.averaging_of(row))


def average(draws: np.ndarray) -> np.ndarray:
    """The mean of (draws, examples, height, width) or (..., 3) images over their draws."""
    return draws.astype(float).mean(axis=0)


def _title(rows: Sequence[Row]) -> str:
    totals = [f"{row['total']:.1f}" for row in sorted(rows, key=lambda row: row["total"])]
    about = f" = {totals[0]}$" if totals[0] == totals[-1] else f"$ from {totals[0]} to {totals[-1]}"
    at_one = "" if all(row["beta"] == 1 for row in rows) else ", or the nearest there is"
    what = {
        "by_beta": rf"{_family(rows[0])} along $\beta$",
        "by_family": rf"families at $\beta = 1${at_one}",
        "equal_elbo": f"$R + D{about} nats",
        "along_frontier": "along the frontier",
    }
    letter, part, rule = (rows[0][field] for field in ("panel", "part", "choice"))
    return f"({letter}) {_PARTS[part]}: {what.get(rule, rule)}"


def _family(row: Row) -> str:
    # A hyphen is half as wide as a plus, and minus signs side by side would be one line.
    return "\N{HAIR SPACE}".join(str(row["family"]).replace("-", "\N{MINUS SIGN}"))


def _head(row: Row) -> list[str]:
    # The field that an objective is named after holds what it aims at.
    aim, objective = row.get(row["objective"]), str(row["objective"])
    symbol = _SYMBOLS.get(objective, objective.replace("_", " "))
    # R of nearly zero is written without the sign that noise may give it.
    rate = abs(row["rate"]) if abs(row["rate"]) < 0.05 else row["rate"]
    return [
        _family(row) + (", ann." if row["kl_warmup_fraction"] else ""),
        symbol if aim in (None, "") else f"{symbol} = {aim:.3g}",
        f"$R$ {rate:.1f}",
        f"$D$ {row['distortion']:.1f}",
    ]


def figure(number: int, table: Sequence[Row], arrays: Arrays) -> Figure | None:
    """Draw one figure; None where the table has nothing of it.

    Args:
      number: Number of the paper's figure.
      table: Rows of gallery.csv.
      arrays: Arrays of gallery.npz.
    """
    panels: dict[str, list[Row]] = {letter: [] for letter in itertools.chain(*_LAYOUT[number])}
    for row in table:
        if row["figure"] == number and row["panel"] in panels:
            panels[row["panel"]].append(row)
    # Panels above each other show the same models, so their columns should align.
    aligned = max(map(len, _LAYOUT[number])) == 1
    lines = (
        [panels[letter] for letter in letters if panels[letter]] for letters in _LAYOUT[number]
    )
    layout = [[panel(rows, arrays, aligned) for rows in line] for line in lines if line]
    if not layout:
        return None
    inch = _inches_per_pixel(layout, arrays["data"].shape[2])
    lefts, width = _columns(layout, inch)
    heights = [max(_height(shown, inch) for shown in line) for line in layout]
    height = sum(heights) + _GAP[1] * (len(heights) - 1) + 2 * _PAD + _CAPTION
    caption = _caption(layout[0][0].first, arrays["reconstruction"].shape[1])
    with drawing():
        # Everything is placed by hand. With no engine at all matplotlib takes the style's once it
        # has drawn.
        drawn = new_figure(figsize=(width, height), layout=PlaceHolderLayoutEngine(True, True))
        top = height - _PAD
        for line, line_height in zip(layout, heights, strict=True):
            for shown, left in zip(line, lefts, strict=False):
                _draw(drawn, shown, left, top, inch)
            top -= line_height + _GAP[1]
        style: dict[str, Any] = {"fontsize": _CAPTION_SIZE, "va": "bottom", "color": "0.35"}
        drawn.text(_PAD / width, _PAD / height, caption, **style)
    return drawn


def _height(shown: Panel, inch: float) -> float:
    """The height of a panel with its title and heads, in inches."""
    return _TITLE + _LINE * shown.lines + shown.image.shape[0] * inch


def _inches_per_pixel(layout: Sequence[Sequence[Panel]], image: int) -> float:
    """The largest size of an image's pixel that fits.

    It is of whole dots of the PNG, so that all pixels are equally large.
    """
    dots = STYLE["savefig.dpi"]
    widest = max(sum(shown.image.shape[1] for shown in line) for line in layout)
    room = _WIDEST - _GAP[0] * (max(map(len, layout)) - 1)
    fitting = int(min(room / widest, _LARGEST_IMAGE / image) * dots)
    return max(fitting, math.ceil(_SMALLEST_IMAGE / image * dots)) / dots


def _columns(layout: Sequence[Sequence[Panel]], inch: float) -> tuple[list[float], float]:
    """Where the columns of panels begin, and the width of the figure, in inches."""
    columns = itertools.zip_longest(*layout)
    widths = [max(_width(shown, inch) for shown in column if shown) for column in columns]
    lefts = [_PAD + sum(widths[:i]) + _GAP[0] * i for i in range(len(widths))]
    return lefts, max(lefts[-1] + widths[-1] + _PAD, _NARROWEST)


def _width(shown: Panel, inch: float) -> float:
    """The width of a panel or of its title, in inches."""
    return max(shown.image.shape[1] * inch, _CHARACTER * len(_plain(shown.title)))


def _plain(text: str) -> str:
    """Roughly what is seen of a text with formulas."""
    return re.sub(r"\\[a-z]+", "x", text).replace("$", "")


def _caption(row: Row, draws: int) -> str:
    what = f"sample: one draw of $d(x|z)$; average: the mean of {draws} draws at that $z$"
    return f"{title(row['dataset'])}, {row['split']} split; $R$ and $D$ in nats\n{what}"


def _draw(drawn: Figure, shown: Panel, left: float, top: float, inch: float) -> None:
    """Draw a panel.

    Args:
      drawn: Figure to draw in.
      shown: Panel to draw.
      left: Left edge of the panel, in inches.
      top: Upper edge of the panel, in inches.
      inch: Size of an image's pixel, in inches.
    """
    width, height = drawn.get_size_inches()
    rows, columns = shown.image.shape[:2]
    # There are no colours of NaN.
    image = shown.image if shown.image.ndim == 2 else np.nan_to_num(shown.image, nan=1.0)
    bottom = top - _TITLE - _LINE * shown.lines - rows * inch
    size = columns * inch / width, rows * inch / height
    axes = drawn.add_axes((left / width, bottom / height, *size))
    scale: dict[str, Any] = {"cmap": _ink(), "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(image, aspect="auto", extent=(0, columns, rows, 0), **scale)
    # An image may be as white as the page.
    high, wide = shown.tile
    corners = itertools.product(shown.columns, range(0, rows, high + _THIN))
    frames = [Rectangle((middle - wide / 2, y), wide, high) for middle, y in corners]
    framed = PatchCollection(frames, facecolor="none", edgecolor="0.5", linewidth=0.3)
    axes.add_collection(framed, autolim=False)
    axes.set_axis_off()
    for middle, label in zip(shown.columns, shown.labels, strict=True):
        _above(axes, middle, 0.25 * _LINE / inch, label, _SMALL_SIZE)
    for middle, lines in zip(shown.models, shown.heads, strict=True):
        for i, line in enumerate(reversed(lines)):
            _above(axes, middle, (i + 1.15) * _LINE / inch, line, _HEAD_SIZE)
    drawn.text(left / width, (top - 0.02) / height, shown.title, fontsize=_TITLE_SIZE, va="top")


def _above(axes: Axes, x: float, pixels: float, text: str, size: float) -> None:
    axes.text(x, -pixels, text, fontsize=size, ha="center", va="baseline", clip_on=False)


def _ink() -> Any:
    """Ink dark on paper, and what is between images as white as the page."""
    return matplotlib.colormaps["gray"].with_extremes(bad="white")


def draw_all(workdir: pathlib.Path | str) -> list[pathlib.Path]:
    """Draws every figure of a gallery from its two files, as PNG and PDF.

    Returns:
      The files written.

    Raises:
      BadInput: If a file is missing, damaged or of another gallery.
    """
    workdir = pathlib.Path(workdir)
    table = disk.read_table(workdir / "gallery.csv")
    arrays = disk.read_arrays(workdir / "gallery.npz")
    _check(workdir, table, arrays)
    written: list[pathlib.Path] = []
    for which in _LAYOUT:
        drawn = figure(which, table, arrays)
        if drawn is not None:
            written += save(drawn, workdir / "figures", f"figure{which}")
    return written


def _check(workdir: pathlib.Path, table: Sequence[Row], arrays: Arrays) -> None:
    missing = [
        name for name in ("data", "member", "reconstruction", "sample") if name not in arrays
    ]
    # Other fields of a member are not shown, and may be younger than the table.
    older = {*FIELDS, "averaging"} - {"objective", "beta", "kl_warmup_fraction"}
    shown = [name for name in GALLERY_COLUMNS if name not in older]
    missing += [name for name in shown if not table or name not in table[0]]
    if missing:
        raise BadInput(
            f"workdir={str(workdir)!r}: expected a gallery with {missing[0]!r}, got one without. "
            "Make it again."
        )
    examples, members = arrays["data"].shape, arrays["member"].size
    shapes = {arrays[part].shape for part in _PARTS}
    fitting = (
        len(shape) == len(examples) + 2 and shape[0] == members and shape[2:] == examples
        for shape in shapes
    )
    if len(examples) not in (3, 4) or not all(fitting):
        raise BadInput(
            f"gallery.npz of workdir={str(workdir)!r}: expected arrays that belong together, got "
            "others. Make the gallery again."
        )
    drawn = set(arrays["member"].tolist())
    for line, row in enumerate(table, start=2):
        if _parameters(row) not in drawn:
            raise BadInput(
                f"gallery.npz of workdir={str(workdir)!r}: expected pictures of "
                f"{row['member']!r}, which gallery.csv names, got none. Make the gallery again."
            )
        try:
            choice("part", row["part"], _PARTS)
            for field in ("position", "rate", "distortion", "total", "kl_warmup_fraction", "beta"):
                number(field, row[field], -math.inf)
            aim = row.get(str(row["objective"]))
            if aim not in (None, ""):
                number(str(row["objective"]), aim, -math.inf)
        except BadInput as error:
            where = f"gallery.csv of workdir={str(workdir)!r}, line {line}"
            raise BadInput(f"{where}: {error}") from error
