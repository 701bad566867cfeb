"""Put data sets into `datasets/` below the current folder: the published ones, or your own with a config.

    python prepare_data.py                                   # all six: download, verify, unpack
    python prepare_data.py --dataset yahoo                   # one; after a break the same command goes on
    python prepare_data.py --mirror DIR_OR_URL               # from a folder or server with the upstream files
    python prepare_data.py --dataset synthetic --generate    # sample the synthetic set, without the network
    python prepare_data.py --text lines.txt --name abc       # your sentences; then: python text.py --dataset abc
    python prepare_data.py --images FOLDER --name abc        # your pictures; then: python image.py --dataset abc

A data set appears in `datasets/` complete or not at all, and a complete one is left alone.
"""

import signal
from pathlib import Path

from modules.command import Interrupted, Parser, run_command
from modules.data.download import Source
from modules.data.omniglot import SIZE
from modules.data.own_images import prepare_images
from modules.data.own_text import prepare_text
from modules.data.prepare import NAMES, prepare_each
from modules.settings import plain_name, whole

NEEDS = {  # flag: those of which one must be there, too
    **dict.fromkeys(("name", "overwrite"), ("text", "images")),
    **dict.fromkeys(("label", "vocab_limit", "deduplicate"), ("text",)),
    **dict.fromkeys(("invert", "img_size"), ("images",)),
}


def command_line():
    """The parser, its flags by what is prepared."""
    parser = Parser(prog="prepare_data.py", description=__doc__.partition("\n")[0])
    published = parser.add_argument_group("a published data set")
    published.add_argument("--dataset", choices=(*NAMES, "all"), help="what to prepare; without any flag, all")
    mirror_help = "take the files from here, under their upstream names; a SHA256SUMS there is respected"
    published.add_argument("--mirror", metavar="DIR_OR_URL", help=mirror_help)
    published.add_argument("--generate", action="store_true", help="sample the synthetic set and don't download it")
    own = parser.add_argument_group("your own data")
    text_help = "one tokenised sentence a line; one file is split at random, three are training, validation and test"
    own.add_argument("--text", nargs="+", metavar="FILE", type=Path, help=text_help)
    images_help = "a folder with PNG and JPEG pictures in it or below it, or MNIST's file or folder of files"
    own.add_argument("--images", metavar="PATH", type=Path, help=images_help)
    own.add_argument("--name", type=plain_name, help="makes datasets/NAME_data and config/config_NAME.py")
    own.add_argument("--overwrite", action="store_true", help="replace the data set and config of that name")
    own.add_argument("--label", action="store_true", help="text: lines are label<TAB>text")
    own.add_argument("--vocab_limit", type=whole(1), help="text: keep only that many of the most frequent words")
    own.add_argument("--deduplicate", action="store_true", help="text: leave out repeated lines before the split")
    own.add_argument("--invert", action="store_true", help="images: ink is bright in pictures, dark in MNIST's files")
    own.add_argument("--img_size", type=whole(2, 256), help=f"images: pixels of a side; without it, {SIZE}")
    return parser


def check(parser, args):
    """End the command if flags do not go together."""
    own, given = [kind for kind in ("text", "images") if getattr(args, kind)], vars(args)
    published = [flag for flag in ("dataset", "mirror", "generate") if given[flag]]
    if own and len(own + published) > 1:
        parser.error(f"--{' and --'.join([*own, *published][:2])} exclude each other")
    for flag, others in NEEDS.items():
        if given[flag] and not set(own) & set(others):
            parser.error(f"--{flag} does nothing without --{' or --'.join(others)}")
    if own and not args.name:
        parser.error(f"--{own[0]} needs --name, under which the data set and its config are made")
    if args.text and len(args.text) not in (1, 3):
        parser.error(f"--text takes one file or three (training, validation, test), not {len(args.text)}")
    if args.text and args.deduplicate and len(args.text) == 3:
        parser.error("--deduplicate is for one file, which is split")
    if args.generate and args.dataset not in ("synthetic", "all", None):
        parser.error(f"--generate is for --dataset synthetic, not {args.dataset}")


def fetch(args):
    """Prepare published data sets."""
    root, names = Path("datasets"), NAMES if args.dataset in ("all", None) else [args.dataset]
    try:
        prepare_each(names, Source(args.mirror, root / ".downloads"), root, args.generate)
    except KeyboardInterrupt:
        raise Interrupted("the same command goes on from here") from None


def main():
    """Prepare what the command line asks for."""
    parser = command_line()
    args = parser.parse_args()
    check(parser, args)
    if args.text:
        prepare_text(args.text, args.name, args.label, args.vocab_limit, args.deduplicate, args.overwrite)
    elif args.images:
        prepare_images(args.images, args.name, args.img_size or SIZE, args.invert, args.overwrite)
    else:
        fetch(args)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, so that nothing is left behind
    run_command(main)
