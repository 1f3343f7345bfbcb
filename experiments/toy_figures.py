"""Figures of the toy experiment, drawn from the tables of its run directory."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.toy_numbers import Row, hits, shown
from rd_elbo import aliases, disk, plots
from rd_elbo.exact import discrete, toy
from rd_elbo.report.style import drawing, subplots

_BLUE, _ORANGE, _GREEN, _PINK = plots.COLOURS[:4]
_MODELS = {"optimum": "(a) hand-built optimum", "elbo": "(b) ELBO", "target": "(c) target rate"}
# Of figure 1: label, marker, size, face and layer of each model; label, colour and dash of curves.
_MARKED = {
    "optimum": ("hand-built optimum", "*", 17, "none", 6),
    "elbo": ("trained by the ELBO", "o", 6, "white", 5),
    "target": ("trained to a target rate", "D", 5, "white", 5),
}
_CURVES = {
    "frontier": ("frontier of a given decoder", _BLUE, "-"),
    "worse decoder": ("worse decoder", _ORANGE, "--"),
    "worse prior": ("worse prior", _GREEN, "-."),
}
_RATE, _DISTORTION = "rate $R$ (nats)", "distortion $D$ (nats)"
_ENDS, _INFORMATION = "rate $R$ it ends at (nats)", "$I(z; z^*)$ (nats)"


def draw_all(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Draw everything; return the files written.

    Raises:
      BadInput: If a table is missing or damaged.
    """
    points = disk.read_table(workdir / "points.csv")
    phases = disk.read_table(workdir / "phase_diagram.csv")
    phases = [{**row, "curve": aliases.CURVES.get(row["curve"], row["curve"])} for row in phases]
    arrays = disk.read_arrays(workdir / "models.npz")
    config = disk.read_json(workdir / "config.json")
    entropy = disk.read_json(workdir / "summary.json")["entropy"]
    models = {name: _tables(arrays, name) for name in _MODELS}
    rows = shown(workdir, points)
    figures = {
        "figure1": figure1(phases, rows, entropy),
        "figure2": figure2(models, rows),
        "curve": curve(points, entropy),
        "initialisations": initialisations(points, config),
    }
    folder = workdir / "figures"
    return [path for name, figure in figures.items() for path in plots.save(figure, folder, name)]


def _tables(arrays: Mapping[str, np.ndarray], model: str) -> discrete.Tables:
    prefix = f"{model}/"
    own = {key: jnp.asarray(array) for key, array in arrays.items() if key.startswith(prefix)}
    own = {key.removeprefix(prefix): array for key, array in own.items()}
    return discrete.Tables(**aliases.renamed(own, aliases.PARTS))


def _of(points: Sequence[Row], study: str, *names: str) -> list[np.ndarray]:
    rows = [row for row in points if row["study"] == study and row["status"] == "ok"]
    return [np.asarray([row[name] for row in rows], float) for name in names]


def _boundary(axes: Axes, entropy: float, top: float, right: float, **style: Any) -> None:
    """Draws the bound on every model: D >= max(0, H - R)."""
    corners = [0, 0, entropy, right], [top, entropy, 0, 0]
    axes.plot(*corners, color="black", lw=2.2, zorder=2, clip_on=False, **style)


def figure1(phases: Sequence[Row], rows: Mapping[str, Row], entropy: float) -> Figure:
    """Draw the phase diagram (after Alemi et al. 2018, Figure 1, which is a sketch) as computed.

    Args:
      phases: Rows of phase_diagram.csv.
      rows: Rows of the three models, by study.
      entropy: Entropy of the source, nats.
    """
    top, right = 1.45 * entropy, 1.32 * entropy
    with drawing():
        figure, axes = subplots(figsize=(5.6, 4.9))
        feasible = [0, 0, entropy, right, right], [top, entropy, 0, 0, top]
        axes.fill(*feasible, color="0.93", zorder=0)
        _boundary(axes, entropy, top, right)
        for name, (label, colour, dash) in _CURVES.items():
            own = [row for row in phases if row["curve"] == name]
            rate, distortion = (
                np.asarray([r[field] for r in own]) for field in ("rate", "distortion")
            )
            seen = (distortion < top) & (rate < right)
            axes.plot(
                rate[seen], distortion[seen], color=colour, ls=dash, lw=1.5, label=label, zorder=3
            )
            one = int(np.abs(np.log([row["beta"] for row in own])).argmin())
            axes.plot(rate[one], distortion[one], "o", color=colour, ms=6, zorder=4)
        axes.plot([], [], "o", color="0.4", ms=6, label=r"$\beta = 1$ on each curve")
        for study, row in rows.items():
            label, marker, size, face, layer = _MARKED[study]
            style: dict[str, Any] = {"marker": marker, "ms": size, "mfc": face, "zorder": layer}
            style |= {"mec": "0.2", "mew": 1.4, "ls": "none", "clip_on": False}
            axes.plot(row["rate"], row["distortion"], label=label, **style)
        axes.text(0.22 * entropy, 0.3 * entropy, "infeasible", style="italic", ha="center")
        axes.text(0.93 * entropy, 0.95 * entropy, "feasible", style="italic", ha="center")
        arrow = {"arrowstyle": "->", "lw": 0.7}
        at = (0.025 * entropy, 0.56 * entropy)
        axes.annotate("auto-decoding", (0, entropy), at, arrowprops=arrow)
        at = (1.02 * entropy, 0.18 * entropy)
        axes.annotate("auto-encoding", (entropy, 0), at, arrowprops=arrow)
        axes.set(xlim=(0, right), ylim=(0, top), xlabel=_RATE, ylabel=_DISTORTION)
        axes.set_xticks([0, entropy], ["0", f"$H$ = {entropy:.3f}"])
        axes.set_yticks([0, entropy], ["0", "$H$"])
        axes.legend(fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    return figure


def figure2(models: Mapping[str, discrete.Tables], rows: Mapping[str, Row]) -> Figure:
    """Draw three models, a column each, in the paper's arrangement (Alemi et al. 2018, Figure 2).

    Args:
      models: Tables of log-probabilities of the three models, by study.
      rows: Rows of the same models.
    """
    names = ("$p^*, g, d$", "$m(z), e(z)$", "$e(z|x)$", "$d(x|z)$", "$p(x'|x)$")
    with drawing():
        heights = (1, 1, 1.25, 1.25, 1.25)
        figure, grid = subplots(5, 3, figsize=(7.4, 9.6), height_ratios=heights)
        for column, (name, t) in zip(grid.T, models.items(), strict=True):
            at = f"$R$ = {rows[name]['rate']:.4f}, $D$ = {rows[name]['distortion']:.4f}"
            column[0].set_title(f"{_MODELS[name]}\n{at}", fontsize=9)
            _draw_symbols(column[0], t)
            _draw_codes(column[1], t)
            _image(figure, column[2], np.exp(t.encoder).T, "$x$", "$z$")
            _image(figure, column[3], np.exp(t.decoder), "$x$", "$z$")
            _image(figure, column[4], np.exp(discrete.reconstruction(t)), "$x'$", "$x$")
        for axes, name in zip(grid[:, 0], names, strict=True):
            axes.set_ylabel(f"{name}\n{axes.get_ylabel()}" if axes.get_ylabel() else name)
        grid[0, 0].legend(fontsize=6.5, loc="upper right", handlelength=1.2)
        grid[1, 1].set_ylim(0, 1.7 * grid[1, 1].get_ylim()[1])
        grid[1, 1].legend(fontsize=6.5, loc="upper right", handlelength=1.2)
    return figure


def _draw_symbols(axes: Axes, t: discrete.Tables) -> None:
    x, generated = np.arange(toy.SYMBOLS), np.exp(discrete.generated(t))
    axes.bar(x, np.exp(t.source), width=1.0, color="0.8", label="$p^*(x)$")
    axes.step(x, generated, where="mid", color=_BLUE, lw=1.3, label="$g(x)$")
    axes.plot(x, np.exp(discrete.reconstructed(t)), ".", color=_ORANGE, ms=4, label="$d(x)$")
    axes.set(xlabel="$x$")


def _draw_codes(axes: Axes, t: discrete.Tables) -> None:
    codes = np.arange(t.prior.shape[0])
    few = len(codes) < 5
    zero, one = np.asarray(toy.labelled_source()) @ np.exp(np.asarray(t.encoder))
    labels = [rf"$p(z^*{{=}}{bit})\,e(z|z^*{{=}}{bit})$" for bit in (0, 1)]
    axes.bar(codes, zero, width=0.8, color=_BLUE, label=labels[0])
    axes.bar(codes, one, width=0.8, bottom=zero, color=_ORANGE, label=labels[1])
    axes.plot(codes, np.exp(t.prior), "_", color="black", ms=9 if few else 5, label="$m(z)$")
    axes.set(xlabel="$z$")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", nbins=4)
    if few:
        axes.set_xticks(codes)
        axes.set_xlim(-1.5, len(codes) + 0.5)


def _image(figure: Figure, axes: Axes, table: np.ndarray, across: str, down: str) -> None:
    how: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    image = axes.imshow(table, cmap="viridis", vmin=0, **how)
    axes.spines[["top", "right"]].set_visible(True)
    axes.set(xlabel=across, ylabel=down)
    if len(table) < 5:
        axes.set_yticks(range(len(table)))
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=6)


def curve(points: Sequence[Row], entropy: float) -> Figure:
    """Draw the points of the diagonal that beta and a target rate can choose.

    It is the claim of the paper's section 4, as a population.

    Args:
      points: Rows of points.csv.
      entropy: Entropy of the source, nats.
    """
    edge = 1.12 * entropy
    beta, rate, distortion = _of(points, "beta_curve", "beta", "rate", "distortion")
    target, rate_t, distortion_t = _of(points, "target_curve", "target_rate", "rate", "distortion")
    found = [hits(points, wanted) for wanted in np.unique(target)]
    best = [min(rows, key=lambda row: row["excess"]) for rows in found if rows]
    corner = [row["rate"] for row in best], [row["distortion"] for row in best]
    by_beta: dict[str, Any] = {"ms": 4, "mfc": "none", "mec": _BLUE, "mew": 0.8}
    by_rate: dict[str, Any] = {"ms": 3, "mfc": "none", "mec": _ORANGE, "mew": 0.6, "alpha": 0.5}
    chosen: dict[str, Any] = {"ms": 4, "color": _ORANGE}
    with drawing():
        figure, (plane, dial, aim) = subplots(1, 3, figsize=(10.2, 3.7))
        _boundary(plane, entropy, edge, edge, label=r"$D = \max(0, H - R)$")
        plane.plot(rate, distortion, "o", label=r"by $\beta$", zorder=3, clip_on=False, **by_beta)
        plane.plot(rate_t, distortion_t, "D", label="by target rate", zorder=3, **by_rate)
        label = "the best at each target"
        plane.plot(*corner, "D", label=label, zorder=4, clip_on=False, **chosen)
        plane.set(xlabel=_RATE, ylabel=_DISTORTION, xlim=(0, edge), ylim=(0, edge))
        plane.legend(fontsize=7.5)
        dial.axvline(1, color="0.8", lw=0.8)
        dial.plot(beta, rate, "o", **by_beta)
        dial.axhline(entropy, color="0.5", lw=0.8, ls="--")
        dial.text(beta.max(), entropy, "$H$", va="bottom", ha="right")
        dial.set(xlabel=r"$\beta$", ylabel=_ENDS, xscale="log", ylim=(-0.05, 1.08 * entropy))
        dial.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
        dial.xaxis.set_minor_formatter(NullFormatter())
        dial.set_title(r"by $\beta$", fontsize=9)
        aim.plot([0, entropy], [0, entropy], color="0.8", lw=0.8)
        aim.plot(target, rate_t, "D", **by_rate)
        aim.plot([row["target_rate"] for row in best], corner[0], "D", **chosen)
        aim.set(xlabel=r"target rate $\sigma$ (nats)", ylabel=_ENDS, ylim=(-0.05, 1.08 * entropy))
        aim.set_title("by target rate", fontsize=9)
    return figure


def initialisations(points: Sequence[Row], config: Mapping[str, Any]) -> Figure:
    """Draw histograms of the ends of runs from different initialisations.

    Args:
      points: Rows of points.csv.
      config: Configuration of the experiment.
    """
    target, weight = f"target {config['target_rate']:g}", f"weight {config['target_weight']:g}"
    narrow, wide = (f"scale {config[name]:g}" for name in ("initial_scale", "wide_scale"))

    def groups(study: str, name: str) -> dict[str, np.ndarray]:
        (few,), (many,) = _of(points, study, name), _of(points, f"{study}_wide", name)
        return {narrow: few, wide: many}

    with drawing():
        figure, grid = subplots(2, 3, figsize=(10.2, 5.6))
        _log_histogram(grid[0, 0], groups("elbo", "rate"), "ELBO: rate $R$ (nats)", 0.005)
        label = f"{target}: $R + D - H$ (nats)"
        _log_histogram(grid[0, 1], groups("target", "excess"), label, 0.005)
        (printed,), (two,) = _of(points, "target_printed", "rate"), _of(points, "target", "rate")
        ends = [*printed, *two, config["target_rate"]]
        bins = np.linspace(min(ends) - 0.005, max(ends) + 0.005, 41)
        _histogram(grid[0, 2], printed, bins, _PINK, "weight 1, as printed")
        _histogram(grid[0, 2], two, bins, _BLUE, weight)
        grid[0, 2].set(xlabel=f"rate $R$ with {target} (nats)", ylabel="part of runs")
        grid[0, 2].legend(fontsize=7.5)
        for axes, name, label, bins in (
            (grid[1, 0], "code_information", _INFORMATION, np.linspace(0, 0.42, 43)),
            (grid[1, 1], "larger_cluster", "mass of the larger cluster", np.linspace(0.5, 1, 51)),
        ):
            for study, colour, title in (("elbo", _BLUE, "ELBO"), ("target", _ORANGE, target)):
                _histogram(axes, _of(points, study, name)[0], bins, colour, title)
            axes.set(xlabel=label, ylabel="part of runs", yscale="log")
            axes.legend(fontsize=7.5)
        axes = grid[1, 2]
        for study, colour, scale in (("target_wide", _PINK, wide), ("target", _ORANGE, narrow)):
            information, excess = _of(points, study, "code_information", "excess")
            height = np.maximum(excess, 1e-6)
            axes.plot(information, height, ".", ms=3, color=colour, label=f"{target}, {scale}")
        axes.set(xlabel=_INFORMATION, ylabel="$R + D - H$ (nats)", yscale="log")
        axes.set_ylim(top=2 * axes.get_ylim()[1])
        axes.legend(fontsize=7.5, loc="upper left")
    return figure


def _histogram(axes: Axes, values: np.ndarray, bins: np.ndarray, colour: str, label: str) -> None:
    parts = np.full(len(values), 1 / len(values))
    axes.hist(values, bins.tolist(), weights=parts, color=colour, alpha=0.6, label=label)


def _log_histogram(axes: Axes, groups: dict[str, np.ndarray], label: str, claim: float) -> None:
    """Draws histograms over powers of ten; values outside of them are counted at their ends."""
    bins = np.geomspace(1e-7, 3, 60)
    for (name, values), colour in zip(groups.items(), (_BLUE, _PINK), strict=True):
        _histogram(axes, np.clip(values, bins[0], bins[-1]), bins, colour, name)
    axes.axvline(claim, color="0.3", lw=0.8, ls="--", label=f"{claim:g}")
    axes.set(xscale="log", xlabel=label, ylabel="part of runs")
    axes.legend(fontsize=7.5)
