"""Tells how far a sweep is, from any terminal, at any time.

python scripts/status.py --workdir=runs/mine
python scripts/status.py --workdir=runs/mine --json     # all that is known, for programs
"""

import argparse
import json
import pathlib

import console as terminal

from rd_elbo import watch


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run directory of a sweep")
    parser.add_argument("--json", action="store_true", help="print the file's content in place of a line")
    args = parser.parse_args()
    content = watch.read(args.workdir)
    print(json.dumps(content) if args.json else watch.describe(content))


if __name__ == "__main__":
    main()
