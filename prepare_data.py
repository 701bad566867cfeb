"""Fetch the data sets into `datasets/` below the current folder: download, verify, unpack.

    python prepare_data.py                                   # all five
    python prepare_data.py --dataset yahoo                   # one; after a break the same command goes on
    python prepare_data.py --mirror DIR_OR_URL               # from a folder or server with the upstream files
    python prepare_data.py --dataset synthetic --generate    # sample the synthetic set, without the network

A data set appears in `datasets/` complete or not at all, and a complete one is left alone.
"""

import signal
from pathlib import Path

from modules.command import Interrupted, Parser, run_command
from modules.data.download import Source
from modules.data.prepare import NAMES, prepare_each


def main():
    """Prepare what the command line asks for."""
    parser = Parser(prog="prepare_data.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", choices=(*NAMES, "all"), default="all", help="what to prepare")
    mirror_help = "take the files from here, under their upstream names; a SHA256SUMS there is respected"
    parser.add_argument("--mirror", metavar="DIR_OR_URL", help=mirror_help)
    parser.add_argument("--generate", action="store_true", help="sample the synthetic set and don't download it")
    args = parser.parse_args()
    if args.generate and args.dataset not in ("synthetic", "all"):
        parser.error(f"--generate is for --dataset synthetic, not {args.dataset}")
    root, names = Path("datasets"), NAMES if args.dataset == "all" else [args.dataset]
    try:
        prepare_each(names, Source(args.mirror, root / ".downloads"), root, args.generate)
    except KeyboardInterrupt:
        raise Interrupted("the same command goes on from here") from None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, so that nothing is left behind
    run_command(main)
