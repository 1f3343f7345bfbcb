"""Redraws every figure of a run from its tables alone.

python scripts/figures.py --workdir=runs/mine
"""

import argparse
import pathlib

import console as terminal

from rd_elbo import plots


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, required=True, help="a run directory with a points.csv"
    )
    parser.add_argument("--splits", nargs="+", help="splits to draw; by default all in the table")
    args = parser.parse_args()
    with terminal.writing(args.workdir):
        paths = plots.draw_all(args.workdir, args.splits)
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
