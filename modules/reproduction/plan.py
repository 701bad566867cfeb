"""What is to be reproduced: tables, the methods that are their rows, the runs behind a row, and the published figures.

A run is never described twice: its id, files and settings all follow from the flags of its command.
"""

import argparse
from dataclasses import dataclass, field
from typing import Callable

from modules import cli, image, text
from modules.config import add_flags
from modules.command import Parser
from modules.training.loop import state_path


@dataclass(frozen=True)
class Domain:
    """What a script decides about its runs."""

    script: str
    keys: dict              # of its configs, each a flag
    run_name: Callable
    beta: float             # of the published beta-VAE


DOMAINS = {"text": Domain("text.py", text.KEYS, cli.run_name, 0.4),
           "image": Domain("image.py", image.KEYS, image.run_name, 0.8)}


@dataclass(frozen=True)
class Method:
    """One row of a table. In `flags`, {beta} is the domain's, {needed} the best model of the run that comes first, and
    {anneal}, {cycle} and {svi} are the table's."""

    key: str
    flags: str
    needs: "Method | None" = None
    main: bool = False          # whether the paper is about it: a table may have more seeds of those


ANNEAL = "--kl_start 0.1 --warm_up {anneal}"
AUTOENCODER = Method("autoencoder", "--beta 0.0")
METHODS = (
    Method("lm", "--model lm"),
    Method("vae", "--kl_start 1.0", main=True),
    Method("vae_anneal", ANNEAL, main=True),
    Method("beta_anneal", "--beta {beta} " + ANNEAL),                                       # Higgins et al. 2017
    Method("savae_anneal", "--model savae {svi} " + ANNEAL),                                # Kim et al. 2018
    Method("aggressive", "--aggressive 1 --kl_start 1.0", main=True),
    Method("aggressive_anneal", "--aggressive 1 " + ANNEAL, main=True),
    Method("cyclical", "--kl_start 0.0 --warm_up {cycle} --kl_cycles 4"),                   # Fu et al. 2019
    Method("free_bits", "--free_bits 0.1"),                                                 # Kingma et al. 2016
    Method("free_bits_sum", "--free_bits 3 --free_bits_over sum"),
    Method("ae_init", "--encoder_from {needed} --free_bits 3 --free_bits_over sum " + ANNEAL,
           needs=AUTOENCODER),                                                              # Li et al. 2019
    Method("batch_norm", "--bn_gamma 0.6"),                                                 # Zhu et al. 2020
    Method("committed_rate", "--committed_rate 3"),                                         # Razavi et al. 2019
)


@dataclass(frozen=True, eq=False)
class Published:
    """Figures of the paper's tables: for each method (mean, standard deviation) of NLL, KL, MI and AU, nats or units.

    Where the paper gives no deviation, the mean stands alone.
    """

    name: str
    decimals: int       # of NLL, KL and MI in the paper
    rows: dict

    def figure(self, method, name):
        """(mean, standard deviation or None) of the figure `name`; None where there is none."""
        found = dict(zip(("nll", "kl", "mi", "active_units"), self.rows.get(method, ()))).get(name)
        return found and (*found, None)[:2]


YAHOO = Published("Yahoo", 1, {
    "lm": ((328.0, 0.3),),
    "vae": ((329.0, 0.1), (0.0,), (0.0,), (0.0,)),
    "vae_anneal": ((328.6, 0.0), (0.0,), (0.0,), (0.0,)),
    "beta_anneal": ((328.7, 0.1), (6.3, 1.7), (2.8, 0.6), (8.0, 5.2)),
    "savae_anneal": ((327.2, 0.2), (5.2, 1.4), (2.7, 0.5), (9.8, 1.3)),
    "aggressive": ((328.2, 0.2), (5.6, 0.2), (3.0, 0.0), (8.0, 0.0)),
    "aggressive_anneal": ((326.7, 0.1), (5.7, 0.7), (2.9, 0.2), (15.0, 3.5)),
})
YELP = Published("Yelp", 1, {
    "lm": ((358.1, 0.6),),
    "vae": ((358.3, 0.2), (0.0,), (0.0,), (0.0,)),
    "vae_anneal": ((357.9, 0.1), (0.0,), (0.0,), (0.0,)),
    "beta_anneal": ((358.2, 0.3), (4.2, 0.4), (2.0, 0.3), (4.2, 3.8)),
    "savae_anneal": ((355.9, 0.1), (2.8, 0.5), (1.7, 0.3), (8.4, 0.9)),
    "aggressive": ((356.9, 0.2), (3.4, 0.3), (2.4, 0.1), (7.4, 1.3)),
    "aggressive_anneal": ((355.9, 0.1), (3.8, 0.2), (2.4, 0.1), (11.3, 1.0)),
})
OMNIGLOT = Published("Omniglot", 2, {
    "lm": ((89.73, 0.04),),
    "vae": ((89.41, 0.04), (1.51, 0.05), (1.43, 0.07), (3.0, 0.0)),
    "vae_anneal": ((89.21, 0.04), (1.97, 0.12), (1.79, 0.11), (5.3, 1.0)),
    "beta_anneal": ((89.15, 0.04), (9.98, 0.20), (3.84, 0.03), (13.0, 0.7)),
    "savae_anneal": ((89.07, 0.06), (3.32, 0.08), (2.63, 0.04), (8.6, 0.5)),
    "aggressive": ((89.05, 0.05), (2.51, 0.14), (2.19, 0.08), (5.6, 0.5)),
    "aggressive_anneal": ((89.11, 0.04), (2.36, 0.15), (2.02, 0.12), (7.2, 1.3)),
})


@dataclass(frozen=True, eq=False)
class Table:
    """One table: what all its runs have in common, how many seeds a row has, and what stands beside ours.

    anneal      epochs of KL annealing
    cycle       epochs of each of the four rises of cyclical annealing
    svi         steps of the semi-amortised VAE; None: as its domain has it
    remark      on how far ours and the published figures compare
    """

    name: str
    title: str
    domain: str
    flags: str
    main_seeds: int         # of the rows that the paper is about
    other_seeds: int
    published: Published
    anneal: int = 10
    cycle: int = 5
    svi: int | None = None
    remark: str = ""


DIFFERENT = "Data and sizes differ from the published ones: compare the pattern, not the values."
SCALES = {
    "small": (
        Table("ptb", "Penn Treebank, 5,000 sentences, a small LSTM", "text",
              "--dataset ptb_tiny --train_limit 5000 --iw_nsamples 100", 3, 1, YAHOO,
              anneal=5, cycle=2, svi=5, remark=DIFFERENT),
        Table("omniglot", "Omniglot, 1,600 images, a small PixelCNN", "image",
              "--dataset omniglot_tiny --train_limit 1600 --iw_nsamples 25", 3, 1, OMNIGLOT,
              anneal=5, cycle=1, svi=5, remark=DIFFERENT)),
    "paper": (
        Table("yahoo", "Yahoo", "text", "--dataset yahoo", 5, 5, YAHOO),
        Table("yelp", "Yelp", "text", "--dataset yelp", 5, 5, YELP),
        Table("omniglot", "Omniglot", "image", "--dataset omniglot", 5, 5, OMNIGLOT)),
}


@dataclass(frozen=True)
class Run:
    """One run of a script, and where its files are."""

    id: str
    script: str
    flags: tuple
    needs: "Run | None" = None      # the run whose best model this one starts from
    args: argparse.Namespace = field(default=None, compare=False)
    keys: dict = field(default=None, compare=False)         # of its config

    @property
    def model(self):
        return cli.model_path(self.args.dataset, self.id)

    @property
    def state(self):
        return state_path(self.model)

    def log(self, suffix=".jsonl", logs=cli.LOGS):
        """One of the files beside each other in the folder of logs."""
        return cli.log_folder(self.args.dataset, logs) / f"{self.id}{suffix}"


def rows_of(table, methods=METHODS, seeds=None):
    """The rows of a table: {Method: its runs, one a seed}; `seeds` overrides how many."""
    return {method: [plan_run(table, method, task)
                     for task in range(seeds or (table.main_seeds if method.main else table.other_seeds))]
            for method in methods}


def runs_of(rows):
    """The runs of some rows and those that they need, each once: a seed of every row, then the next seed."""
    ordered = sorted((run for runs in rows.values() for run in runs), key=lambda run: run.args.taskid)
    return list(dict.fromkeys(one for run in ordered for one in (run.needs, run) if one))


def plan_run(table, method, task):
    """The run of a method with seed number `task`."""
    domain = DOMAINS[table.domain]
    needs = plan_run(table, method.needs, task) if method.needs else None
    flags = method.flags.format(beta=domain.beta, needed=needs and needs.model, anneal=table.anneal, cycle=table.cycle,
                                svi=f"--svi_steps {table.svi}" if table.svi else "")
    flags = tuple(f"{table.flags} {flags} --taskid {task}".split())
    args = parse(domain, flags)
    return Run(domain.run_name(args), domain.script, flags, needs, args, domain.keys)


def parse(domain, flags):
    """The settings of a run, as its script reads them from the flags that matter in training."""
    parser = Parser(prog=domain.script)
    parser.add_argument("--dataset", required=True)
    cli.add_shared_flags(parser)
    add_flags(parser, domain.keys)
    return cli.finish_arguments(parser, parser.parse_args(list(flags)), loads_model=False)
