"""The flags that the scripts share, what they mean for a run, and the path from there to a trained, tested model."""

import math
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from modules.evaluation import metrics
from modules.config import MOST, whole
from modules.command import Interrupted, UserError
from modules.training.memory import keep_freed_memory
from modules.models.layers.precision import PRECISIONS
from modules.training.checkpoint import load_checkpoint, load_encoder
from modules.training.loop import Options, Trainer, record_metrics, state_path
from modules.training.records import Records, environment

LOGS = Path("logs")
SEEDS = (783435, 101, 202, 303, 404, 505, 606, 707, 808, 909)      # --taskid picks one
MAY_CHANGE_ON_RESUME = {"resume", "overwrite", "epochs", "save_every", "iw_nsamples", "iw_batch", "test_nepoch",
                         "max_iterations"}


def checked(convert, condition, requirement):
    """An argparse type: `convert(text)` if it fulfils `condition`, else an error that states the requirement."""
    def parse(text):
        value = convert(text)
        if not condition(value):
            raise ValueError
        return value
    parse.__name__ = requirement
    return parse


COUNT, TWO_OR_MORE, NATURAL = whole(1), whole(2), whole(0)
SEED = checked(int, lambda n: 0 <= n < 2**63, "whole number of at least 0 and below 2^63")
NON_NEGATIVE = checked(float, lambda x: 0 <= x <= MOST, "number from 0 to a billion")
TEMPERATURE = checked(float, lambda x: 1e-6 <= x <= 1e6, "number from 1e-6 to 1e6")
WEIGHT = checked(float, lambda x: 0 <= x <= 1, "number between 0 and 1")
SHARE = checked(float, lambda x: 0 < x <= 1, "number above 0 and at most 1")


def add_shared_flags(parser):
    """The flags of every training script, each default standing here alone."""
    train = parser.add_argument_group("training")
    train.add_argument("--aggressive", type=int, choices=(0, 1), default=0, help="1: aggressive encoder training")
    train.add_argument("--train_limit", type=COUNT, help="read only this many training sentences or images")
    train.add_argument("--warm_up", type=NATURAL, default=10, help="epochs over which the KL weight grows to 1")
    train.add_argument("--kl_start", type=WEIGHT, default=1.0, help="KL weight at the start")
    train.add_argument("--kl_cycles", type=COUNT, default=1,
                       help="cyclical annealing: repeat the warm-up this many times, holding the weight at 1 equally "
                            "long after each")
    train.add_argument("--beta", type=NON_NEGATIVE, default=1.0, help="multiplies the KL weight; 0: an autoencoder")
    train.add_argument("--free_bits", type=NON_NEGATIVE, default=0.0, help="nats of KL without a penalty ...")
    train.add_argument("--free_bits_over", choices=("dimension", "sum"), default="dimension",
                       help="... for each dimension of z, or for their sum")
    train.add_argument("--encoder_from", type=Path, help="start with the encoder of this saved model")
    train.add_argument("--nsamples", type=COUNT, default=1, help="draws of z per x in training")
    train.add_argument("--momentum", type=checked(float, lambda x: 0 <= x < 1, "number from 0 to below 1"), default=0,
                       help="momentum of SGD")
    train.add_argument("--inner_clip", choices=("joint", "encoder"), default="joint",
                       help="inner steps clip the norm over all gradients (published), or over the encoder's alone, "
                            "which saves the decoder's")
    train.add_argument("--precision", choices=tuple(PRECISIONS), default="float32",
                       help="of the most expensive products in training; evaluation is always float32")
    train.add_argument("--seed", type=SEED, help="wins over --taskid")
    train.add_argument("--taskid", type=checked(int, lambda n: 0 <= n < len(SEEDS), "whole number from 0 to 9"),
                       default=0, help=f"picks the seed among {', '.join(map(str, SEEDS))}")
    train.add_argument("--jobid", type=NATURAL, default=0, help="part of the run's name, to tell runs apart")
    keep = parser.add_argument_group("files")
    keep.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    keep.add_argument("--overwrite", action="store_true", help="start this run again, erasing its earlier files")
    keep.add_argument("--save_every", type=NON_NEGATIVE, default=10, help="minutes between checkpoints in an epoch")
    test = parser.add_argument_group("evaluation")
    test.add_argument("--eval", action="store_true", help="evaluate the model of --load_path on the test split")
    test.add_argument("--load_path", type=Path, help="a saved model")
    test.add_argument("--iw_nsamples", type=COUNT, default=500, help="samples of the importance-weighted NLL")
    test.add_argument("--iw_batch", type=COUNT, default=2048,
                      help="pairs of an x and a z that the decoder evaluates at once for it; bounds the memory")


def finish_arguments(parser, args, loads_model, generates=False):
    """Settle what several flags decide together: the seed, that what reads --load_path has it, and that --resume and
    --overwrite come with training, not where a model is loaded or generates."""
    if args.seed is None:
        args.seed = SEEDS[args.taskid]
    if bool(loads_model) != bool(args.load_path):
        parser.error("--eval and --load_path go together" + (", as do --encode and --load_path" if loads_model else ""))
    if (args.resume or args.overwrite) and (loads_model or generates):
        parser.error("--resume and --overwrite belong to training, and a saved model is not trained")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    return args


def evaluated_as_trained(args, its_config):
    """What overrides the dataset's config where a saved model is evaluated: the flags, and the batch size that it was
    trained with, since `mi` mixes q(z) over the batch."""
    return {**vars(args), "batch_size": args.batch_size or its_config["batch_size"]}


def prepare_device():
    """The GPU when there is one, with float32 that is no TF32, else the CPU, made not to give freed memory back."""
    torch.backends.cudnn.allow_tf32 = False
    if torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def run_name(args):
    """What the name of a text run's files says of it."""
    return (f"{args.dataset}_aggressive{args.aggressive}_kls{args.kl_start:.2f}_warm{args.warm_up}_{method_tag(args)}"
            f"{args.jobid}_{args.taskid}_{args.seed}")


def method_tag(args):
    """The part of a run's name that identifies methods other than the paper's own."""
    free = "free" if args.free_bits_over == "dimension" else "freesum"
    parts = [("cycles", args.kl_cycles, args.kl_cycles > 1), ("", args.model, args.model in ("lm", "savae")),
             ("beta", args.beta, args.beta != 1), (free, args.free_bits, args.free_bits),
             ("bn", args.bn_gamma, args.bn_gamma), ("rate", args.committed_rate, args.committed_rate),
             ("init", "", args.encoder_from)]
    return "".join(f"{name}{value:g}_" if isinstance(value, (int, float)) else f"{name}{value}_"
                   for name, value, told in parts if told)


def model_path(dataset, run_id):
    """Where a run keeps its best model."""
    return Path("models", dataset, f"{run_id}.pt")


def log_folder(dataset, logs=LOGS):
    """Where the runs of a data set keep their records, `<run_id>.log` and `<run_id>.jsonl`."""
    return Path(logs, dataset)


def train_and_test(run_id, model, splits, recipe, args, config, description, observer=None, max_iterations=None):
    """Train `model` (or go on training it), then evaluate its best weights on the test split.

    Files are `models/<dataset>/<run_id>.pt` and `logs/<dataset>/<run_id>.{log,jsonl}`. `observer` is the `Trainer`'s,
    with methods `resume(iteration)` and `files()`, what earlier runs left in its place, besides; with
    `max_iterations`, training may stop early, and is then not tested.
    Raises UserError if the files exist already and neither --resume nor --overwrite says what to do.
    """
    best, folder, saved = model_path(args.dataset, run_id), log_folder(args.dataset), None
    if args.resume:
        saved = _saved_state(best, description)
    else:
        if args.encoder_from:
            load_encoder(model, args.encoder_from, description)
        resume = "--resume goes on with it, " if state_path(best).exists() else ""
        _make_room([best, state_path(best), folder / f"{run_id}.log", folder / f"{run_id}.jsonl"], args,
                   f"this run has been made before; {resume}--overwrite starts it again, --jobid N gives this one "
                   "another name")
        _make_room(observer.files() if observer else [], args,
                   "statistics of an earlier run; --overwrite replaces them, or move them to another place first")
    records = Records(folder, run_id)
    options = Options(aggressive=bool(args.aggressive), kl_start=args.kl_start, warm_up=args.warm_up,
                      epochs=config["epochs"], test_nepoch=config["test_nepoch"], nsamples=args.nsamples,
                      inner_clip=args.inner_clip, momentum=args.momentum, save_every=args.save_every, seed=args.seed,
                      beta=args.beta, kl_cycles=args.kl_cycles, free_bits=args.free_bits,
                      free_bits_over=args.free_bits_over, max_iterations=max_iterations or math.inf)
    trainer = Trainer(model, splits, recipe, options, records, best, description, observer)
    if saved is None:
        records.write(None, event="run", id=run_id, args=description["args"], config=config, **environment())
        trainer.save()
    else:
        trainer.resume(saved)
        if observer:
            observer.resume(trainer.progress.iteration)
        if trainer.progress.tested:
            print(f"{run_id} is finished: its figures stand in {records.paths[0]}; --eval evaluates it again")
            return
        records.write(None, event="resume", iteration=trainer.progress.iteration, args=description["args"],
                      config=config, **environment())
    trainer.fit()
    if not trainer.progress.finished:
        print(f"stopped after {trainer.progress.iteration} iterations; --resume with more of them goes on from here")
        return
    model.load_state_dict(load_checkpoint(best, description["domain"])["model"])
    try:
        test(model, splits["test"], args, records)
    except KeyboardInterrupt:
        raise Interrupted("training is finished and saved; the same command with --resume tests it again") from None
    last = load_checkpoint(trainer.state_path, description["domain"])["model"]
    model.load_state_dict(last)         # not the best, which the optimisers' state does not belong to
    trainer.progress.tested = True
    trainer.save()
    records.close()


def test(model, split, args, records):
    """Write the TEST lines of a model: one-sample figures, then the importance-weighted NLL."""
    words = split.unit == "word"
    measured = metrics.evaluate(model, split, args.seed)
    record_metrics(records, "test", measured, words, final=True)
    nll = metrics.importance_weighted_nll(
        model, split, args.iw_nsamples, args.iw_batch, args.seed,
        lambda batches: tqdm(batches, total=split.num_batches, desc="iw nll", leave=False,
                             disable=not sys.stderr.isatty()))
    if not math.isfinite(nll):
        raise UserError(f"the importance-weighted NLL is {nll}: the posteriors are too narrow, or too far from the "
                        "prior, for float32; train with a gentler setting")
    ppl = metrics.perplexity(nll, measured)
    records.write(f"iw nll: {nll:.4f}" + (f", iw ppl: {ppl:.4f}" if words else ""), event="iw", nll=nll,
                  ppl=ppl if words and math.isfinite(ppl) else None, nsamples=args.iw_nsamples)


def plain_arguments(args):
    """The arguments as JSON takes them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(vars(args).items())}


def _saved_state(best, description):
    """The state to resume from; raises UserError if there is none, or if it is another run's."""
    state = state_path(best)
    if not state.is_file():
        raise UserError(f"{state}: nothing to resume; start the run without --resume")
    saved = load_checkpoint(state, description["domain"])
    if not {"model", "training", "args", "config"} <= saved.keys():
        raise UserError(f"{state}: a model, but not the state of a run to go on with; start again with --overwrite")
    _check_same_run(state, saved, description)
    return saved


def _make_room(paths, args, advice):
    """Delete what is there with --overwrite; without it raise UserError with the advice."""
    for path in paths:
        if path.exists() and not args.overwrite:
            raise UserError(f"{path}: {advice}")
        path.unlink(missing_ok=True)


def _check_same_run(path, saved, description):
    """Raise UserError unless settings and training data are those that the saved run was started with."""
    for part in ("args", "config"):
        for name, value in saved[part].items():     # flags that are younger than the run have their defaults
            if part == "args" and name in saved["config"]:
                continue                            # a flag that says what the config says changes nothing
            if name not in MAY_CHANGE_ON_RESUME and value != description[part].get(name):
                raise UserError(f"{path}: the run was started with {name} = {value}, not "
                                f"{description[part].get(name)}; resume it with what it was started with")
    if any(saved[name] != description.get(name) for name in ("data", "vocabulary") if name in saved):
        raise UserError(f"{path}: the data have changed since this run was started; put the old ones back, or start "
                        "again with --overwrite or another --jobid")
