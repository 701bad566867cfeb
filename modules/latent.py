"""What text and image configs share: which model of the latent variable, and how its posterior is constrained."""

from modules.config import Key, number, one_of, whole
from modules.methods.constraints import BatchNormMean, CommittedRate
from modules.command import UserError
from modules.methods.semi_amortised import SemiAmortisedVAE
from modules.models.vae import VAE


MOST_NATS = 8           # that a committed rate asks of each dimension: posteriors of standard deviation 2e-4


def keys(svi_steps):
    """The config keys; `svi_steps` is the domain's default."""
    return {
        "model": Key(one_of("vae", "lm", "savae"), "lm: the decoder alone, without z; savae: semi-amortised", "vae"),
        "svi_steps": Key(whole(1), "steps that refine the posterior of savae", svi_steps),
        "bn_gamma": Key(number(0, 100), "batch-normalise the posterior mean, with this scale", None),
        "committed_rate": Key(number(1e-6, 100), "bound the posterior's variance to a KL of at least that, nats", None),
    }


def dimensions(config):
    """Dimensions of z: `nz`, or 0 for a model without it."""
    return 0 if config.get("model") == "lm" else config["nz"]


def constraints(config):
    """The modules that a `GaussianEncoder` is to apply to its mean and log-variance."""
    chosen = []
    if config.get("bn_gamma"):
        chosen.append(BatchNormMean(config["nz"], config["bn_gamma"]))
    if config.get("committed_rate"):
        chosen.append(CommittedRate(config["nz"], config["committed_rate"]))
    return chosen


def assemble(encoder, decoder, config):
    """The model that a config asks for, of its two networks."""
    if config.get("model") == "savae":
        return SemiAmortisedVAE(encoder, decoder, config["svi_steps"], config["batch_size"])
    return VAE(encoder, decoder)


def check(args, config):
    """Raise UserError for settings that exclude each other."""
    if config["model"] == "lm":
        refuse = [(args.aggressive, "--aggressive 1"), (args.encoder_from, "--encoder_from"),
                  (args.beta != 1, "--beta"), (args.kl_cycles > 1, "--kl_cycles"), (args.free_bits, "--free_bits"),
                  (config["bn_gamma"], "--bn_gamma"), (config["committed_rate"], "--committed_rate"),
                  (args.svi_steps, "--svi_steps")]
        reason = "a model without latent variable has no encoder and no KL"
    elif config["model"] == "savae":
        refuse = [(config["bn_gamma"], "--bn_gamma"), (config["committed_rate"], "--committed_rate"),
                  (args.free_bits, "--free_bits")]
        reason = "it refines its posterior for the ELBO, free of constraints"
    elif (config["committed_rate"] or 0) > MOST_NATS * config["nz"]:
        raise UserError(f"--committed_rate {config['committed_rate']:g}: with nz = {config['nz']} at most "
                        f"{MOST_NATS * config['nz']}, since float32 cannot tell narrower posteriors apart")
    else:
        refuse, reason = [(args.svi_steps, "--svi_steps")], "only --model savae refines its posterior"
    for given, flag in refuse:
        if given:
            raise UserError(f"--model {config['model']} and {flag} exclude each other: {reason}")
