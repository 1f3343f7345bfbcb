"""Figures of the toy experiment, drawn from the tables of its run directory."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rd_elbo import aliases, disk, plots
from rd_elbo.exact import discrete, toy

Row = dict[str, Any]
_BLUE, _ORANGE, _GREEN, _PINK = plots.COLOURS[:4]
_MODELS = {"optimum": "(a) hand-built optimum", "elbo": "(b) ELBO", "target": "(c) target rate"}
_MARKERS = {"optimum": ("*", 17, "0.2"), "elbo": ("o", 6, "0.2"), "target": ("D", 5, "0.2")}


def draw_all(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Draws everything; returns the files written.

    Raises:
      BadInput: If a table is missing or damaged.
    """
    points, totals = disk.read_table(workdir / "points.csv"), disk.read_json(workdir / "summary.json")
    optimum, phases = disk.read_table(workdir / "optimum.csv"), disk.read_table(workdir / "phase_diagram.csv")
    arrays, config = disk.read_arrays(workdir / "models.npz"), disk.read_json(workdir / "config.json")
    phases = [{**row, "curve": aliases.CURVES.get(row["curve"], row["curve"])} for row in phases]
    models = {name: _tables(arrays, name) for name in _MODELS}
    shown = {"optimum": optimum[0], **{s: next(row for row in points if row["study"] == s) for s in ("elbo", "target")}}
    figures = {
        "figure1": figure1(phases, shown, totals["entropy"]),
        "figure2": figure2(models, shown),
        "curve": curve(points, totals["entropy"]),
        "initialisations": initialisations(points, config),
    }
    folder = workdir / "figures"
    return [path for name, figure in figures.items() for path in plots.save(figure, folder, name)]


def _tables(arrays: Mapping[str, np.ndarray], model: str) -> discrete.Tables:
    own = {key.removeprefix(f"{model}/"): jnp.asarray(array) for key, array in arrays.items() if key.startswith(f"{model}/")}
    return discrete.Tables(**aliases.renamed(own, aliases.PARTS))


def _of(points: Sequence[Row], study: str, *names: str) -> list[np.ndarray]:
    rows = [row for row in points if row["study"] == study and row["status"] == "ok"]
    return [np.asarray([row[name] for row in rows], float) for name in names]


def _boundary(axes: Axes, entropy: float, top: float, right: float, label: str | None = None) -> None:
    """What no model can be below of: D >= max(0, H - R)."""
    axes.plot([0, 0, entropy, right], [top, entropy, 0, 0], color="black", lw=2.2, zorder=2, label=label, clip_on=False)


def figure1(phases: Sequence[Row], shown: dict[str, Row], entropy: float) -> Figure:
    """The phase diagram (after Alemi et al. 2018, Figure 1), computed where the paper's is a sketch."""
    top, right = 1.45 * entropy, 1.32 * entropy
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 4.9))
        axes.fill([0, 0, entropy, right, right], [top, entropy, 0, 0, top], color="0.93", zorder=0)
        _boundary(axes, entropy, top, right)
        styles = {
            "frontier": (_BLUE, "-", "frontier of a given decoder"),
            "worse decoder": (_ORANGE, "--", "worse decoder"),
            "worse prior": (_GREEN, "-.", "worse prior"),
        }
        for name, (colour, dash, label) in styles.items():
            rows = [row for row in phases if row["curve"] == name]
            rate, distortion, beta = (np.asarray([row[field] for row in rows]) for field in ("rate", "distortion", "beta"))
            inside = (distortion < top) & (rate < right)
            axes.plot(rate[inside], distortion[inside], color=colour, ls=dash, lw=1.5, label=label, zorder=3)
            one = int(np.abs(np.log(beta)).argmin())
            axes.plot(rate[one], distortion[one], "o", color=colour, ms=6, zorder=4)
        axes.plot([], [], "o", color="0.4", ms=6, label=r"$\beta = 1$ on each curve")
        names = {"optimum": "hand-built optimum", "elbo": "trained by the ELBO", "target": "trained to a target rate"}
        for study, row in shown.items():
            marker, size, colour = _MARKERS[study]
            axes.plot(
                row["rate"],
                row["distortion"],
                marker,
                ms=size,
                mfc="none" if study == "optimum" else "white",
                mec=colour,
                mew=1.4,
                label=names[study],
                ls="none",
                zorder=6 if study == "optimum" else 5,
                clip_on=False,
            )
        axes.text(0.22 * entropy, 0.3 * entropy, "infeasible", style="italic", ha="center")
        axes.text(0.93 * entropy, 0.95 * entropy, "feasible", style="italic", ha="center")
        axes.annotate("auto-decoding", (0, entropy), (0.025 * entropy, 0.56 * entropy), arrowprops={"arrowstyle": "->", "lw": 0.7})
        axes.annotate("auto-encoding", (entropy, 0), (1.02 * entropy, 0.18 * entropy), arrowprops={"arrowstyle": "->", "lw": 0.7})
        axes.set(xlim=(0, right), ylim=(0, top), xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)")
        axes.set_xticks([0, entropy], ["0", f"$H$ = {entropy:.3f}"])
        axes.set_yticks([0, entropy], ["0", "$H$"])
        axes.legend(fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    return figure


def figure2(models: dict[str, discrete.Tables], shown: dict[str, Row]) -> Figure:
    """Three models, a column each, in the paper's arrangement (Alemi et al. 2018, Figure 2)."""
    labelled = np.asarray(toy.labelled_source())
    with plt.rc_context(plots.STYLE):
        figure, grid = plt.subplots(5, 3, figsize=(7.4, 9.6), height_ratios=(1, 1, 1.25, 1.25, 1.25))
        for column, (name, t) in zip(grid.T, models.items(), strict=True):
            row = shown[name]
            axes = column[0]
            axes.set_title(f"{_MODELS[name]}\n$R$ = {row['rate']:.4f}, $D$ = {row['distortion']:.4f}", fontsize=9)
            x, codes = np.arange(toy.SYMBOLS), np.arange(t.prior.shape[0])
            axes.bar(x, np.exp(t.source), width=1.0, color="0.8", label="$p^*(x)$")
            axes.step(x, np.exp(discrete.generated(t)), where="mid", color=_BLUE, lw=1.3, label="$g(x)$")
            axes.plot(x, np.exp(discrete.reconstructed(t)), ".", color=_ORANGE, ms=4, label="$d(x)$")
            axes.set(xlabel="$x$")
            axes = column[1]
            joint = labelled @ np.exp(np.asarray(t.encoder))
            axes.bar(codes, joint[0], width=0.8, color=_BLUE, label=r"$p(z^*{=}0)\,e(z|z^*{=}0)$")
            axes.bar(codes, joint[1], width=0.8, bottom=joint[0], color=_ORANGE, label=r"$p(z^*{=}1)\,e(z|z^*{=}1)$")
            axes.plot(codes, np.exp(t.prior), "_", color="black", ms=9 if len(codes) < 5 else 5, label="$m(z)$")
            axes.set(xlabel="$z$")
            axes.set_ylim(bottom=0)
            axes.locator_params(axis="y", nbins=4)
            if len(codes) < 5:
                axes.set_xticks(codes)
                axes.set_xlim(-1.5, len(codes) + 0.5)
            _image(figure, column[2], np.exp(t.encoder).T, "$x$", "$z$")
            _image(figure, column[3], np.exp(t.decoder), "$x$", "$z$")
            _image(figure, column[4], np.exp(discrete.reconstruction(t)), "$x'$", "$x$")
        for axes, label in zip(grid[:, 0], ("$p^*, g, d$", "$m(z), e(z)$", "$e(z|x)$", "$d(x|z)$", "$p(x'|x)$"), strict=True):
            axes.set_ylabel(f"{label}\n{axes.get_ylabel()}" if axes.get_ylabel() else label)
        grid[0, 0].legend(fontsize=6.5, loc="upper right", handlelength=1.2)
        grid[1, 1].set_ylim(0, 1.7 * grid[1, 1].get_ylim()[1])
        grid[1, 1].legend(fontsize=6.5, loc="upper right", handlelength=1.2)
    return figure


def _image(figure: Figure, axes: Axes, table: np.ndarray, across: str, down: str) -> None:
    shown = axes.imshow(table, cmap="viridis", aspect="auto", origin="lower", vmin=0, interpolation="nearest")
    axes.spines[["top", "right"]].set_visible(True)
    axes.set(xlabel=across, ylabel=down)
    if len(table) < 5:
        axes.set_yticks(range(len(table)))
    figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=6)


def curve(points: Sequence[Row], entropy: float) -> Figure:
    """What beta and what a target rate can choose on the diagonal (paper's claim of section 4, as a population)."""
    with plt.rc_context(plots.STYLE):
        figure, (plane, dial, aim) = plt.subplots(1, 3, figsize=(10.2, 3.7))
        beta, rate, distortion = _of(points, "beta_curve", "beta", "rate", "distortion")
        target, rate_t, distortion_t = _of(points, "target_curve", "target_rate", "rate", "distortion")
        _boundary(plane, entropy, 1.12 * entropy, 1.12 * entropy, r"$D = \max(0, H - R)$")
        plane.plot(rate, distortion, "o", ms=4, mfc="none", mec=_BLUE, mew=0.8, label=r"by $\beta$", zorder=3, clip_on=False)
        plane.plot(rate_t, distortion_t, "D", ms=3, mfc="none", mec=_ORANGE, mew=0.6, alpha=0.5, label="by target rate", zorder=3)
        found = [hits(points, wanted) for wanted in np.unique(target)]
        best = [min(rows, key=lambda row: row["excess"]) for rows in found if rows]
        corner = [row["rate"] for row in best], [row["distortion"] for row in best]
        plane.plot(*corner, "D", ms=4, color=_ORANGE, label="the best at each target", zorder=4, clip_on=False)
        plane.set(xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)", xlim=(0, 1.12 * entropy), ylim=(0, 1.12 * entropy))
        plane.legend(fontsize=7.5)
        dial.axvline(1, color="0.8", lw=0.8)
        dial.plot(beta, rate, "o", ms=4, mfc="none", mec=_BLUE, mew=0.8)
        dial.axhline(entropy, color="0.5", lw=0.8, ls="--")
        dial.text(beta.max(), entropy, "$H$", va="bottom", ha="right")
        dial.set(xlabel=r"$\beta$", ylabel="rate $R$ it ends at (nats)", xscale="log", ylim=(-0.05, 1.08 * entropy))
        dial.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
        dial.xaxis.set_minor_formatter(plt.NullFormatter())
        dial.set_title(r"by $\beta$", fontsize=9)
        aim.plot([0, entropy], [0, entropy], color="0.8", lw=0.8)
        aim.plot(target, rate_t, "D", ms=3, mfc="none", mec=_ORANGE, mew=0.6, alpha=0.5)
        aim.plot([row["target_rate"] for row in best], corner[0], "D", ms=4, color=_ORANGE)
        aim.set(xlabel=r"target rate $\sigma$ (nats)", ylabel="rate $R$ it ends at (nats)", ylim=(-0.05, 1.08 * entropy))
        aim.set_title("by target rate", fontsize=9)
    return figure


def hits(points: Sequence[Row], target: float) -> list[Row]:
    """The runs to one target rate that ended within 0.001 of it."""
    rows = [row for row in points if row["study"] == "target_curve" and row["target_rate"] == target and row["status"] == "ok"]
    return [row for row in rows if abs(row["rate"] - target) <= 0.001]


def initialisations(points: Sequence[Row], config: dict[str, Any]) -> Figure:
    """Where runs from different initialisations end, as histograms."""
    target = config["target_rate"]
    with plt.rc_context(plots.STYLE):
        figure, grid = plt.subplots(2, 3, figsize=(10.2, 5.6))
        wide = f"scale {config['wide_scale']:g}"
        (rate,), (rate_wide,) = _of(points, "elbo", "rate"), _of(points, "elbo_wide", "rate")
        _log_histogram(grid[0, 0], {f"scale {config['initial_scale']:g}": rate, wide: rate_wide}, "ELBO: rate $R$ (nats)", 0.005)
        (excess,), (excess_wide,) = _of(points, "target", "excess"), _of(points, "target_wide", "excess")
        groups = {f"scale {config['initial_scale']:g}": excess, wide: excess_wide}
        _log_histogram(grid[0, 1], groups, f"target {target:g}: $R + D - H$ (nats)", 0.005)
        (printed,), (two,) = _of(points, "target_printed", "rate"), _of(points, "target", "rate")
        low, high = min(printed.min(), two.min(), target) - 0.005, max(printed.max(), two.max(), target) + 0.005
        axes = grid[0, 2]
        for label, values, colour in (
            ("weight 1, as printed", printed, _PINK),
            (f"weight {config['target_weight']:g}", two, _BLUE),
        ):
            axes.hist(
                values,
                np.linspace(low, high, 41).tolist(),
                weights=np.full(len(values), 1 / len(values)),
                color=colour,
                alpha=0.6,
                label=label,
            )
        axes.set(xlabel=f"rate $R$ with target {target:g} (nats)", ylabel="part of runs")
        axes.legend(fontsize=7.5)
        for axes, name, label, bins in (
            (grid[1, 0], "code_information", "$I(z; z^*)$ (nats)", np.linspace(0, 0.42, 43).tolist()),
            (grid[1, 1], "larger_cluster", "mass of the larger cluster", np.linspace(0.5, 1, 51).tolist()),
        ):
            for study, colour, title in (("elbo", _BLUE, "ELBO"), ("target", _ORANGE, f"target {target:g}")):
                (values,) = _of(points, study, name)
                axes.hist(values, bins, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.6, label=title)
            axes.set(xlabel=label, ylabel="part of runs", yscale="log")
            axes.legend(fontsize=7.5)
        axes = grid[1, 2]
        for study, colour, title in (("target_wide", _PINK, wide), ("target", _ORANGE, f"scale {config['initial_scale']:g}")):
            information, excess = _of(points, study, "code_information", "excess")
            axes.plot(information, np.maximum(excess, 1e-6), ".", ms=3, color=colour, label=f"target {target:g}, {title}")
        axes.set(xlabel="$I(z; z^*)$ (nats)", ylabel="$R + D - H$ (nats)", yscale="log")
        axes.set_ylim(top=2 * axes.get_ylim()[1])
        axes.legend(fontsize=7.5, loc="upper left")
    return figure


def _log_histogram(axes: Axes, groups: dict[str, np.ndarray], label: str, claim: float) -> None:
    """Histograms over powers of ten; what lies outside of them is counted at their ends."""
    bins = np.geomspace(1e-7, 3, 60).tolist()
    for (name, values), colour in zip(groups.items(), (_BLUE, _PINK), strict=True):
        axes.hist(
            np.clip(values, bins[0], bins[-1]),
            bins,
            weights=np.full(len(values), 1 / len(values)),
            color=colour,
            alpha=0.6,
            label=name,
        )
    axes.axvline(claim, color="0.3", lw=0.8, ls="--", label=f"{claim:g}")
    axes.set(xscale="log", xlabel=label, ylabel="part of runs")
    axes.legend(fontsize=7.5)
