"""What tables and legends call a run's method."""

DEFAULTS = {"model": "vae", "aggressive": 0, "kl_start": 1.0, "warm_up": 10, "kl_cycles": 1, "beta": 1.0,
            "free_bits": 0.0, "free_bits_over": "dimension", "encoder_from": None, "bn_gamma": None,
            "committed_rate": None}         # what logs older than a flag leave out


def method_name(settings):
    """The method of a run, after its settings: the `args` of its log, which its `config` may complete; a dict."""
    chosen = {**DEFAULTS, **{name: value for name, value in settings.items() if value is not None}}
    if chosen["model"] == "lm":
        return "PixelCNN" if "img_size" in settings else "LM"       # the decoder alone, as the paper calls it
    return ", ".join([_model(chosen) + _annealing(chosen), *_additions(chosen)])


def _model(chosen):
    """The objective and how it is trained: "aggressive" alone is the paper's name for the aggressive VAE."""
    if chosen["model"] == "savae":
        name = "SA-VAE"
    elif chosen["beta"] == 0:
        name = "autoencoder"
    elif chosen["beta"] != 1:
        name = f"beta-VAE {chosen['beta']:g}"
    else:
        return "aggressive" if chosen["aggressive"] else "VAE"
    return f"aggressive {name}" if chosen["aggressive"] else name


def _annealing(chosen):
    if chosen["kl_start"] == 1 or chosen["warm_up"] == 0 or chosen["beta"] == 0:
        return ""
    return " + anneal" if chosen["kl_cycles"] == 1 else ", cyclical"


def _additions(chosen):
    """What is laid on top, in words, one a setting."""
    over = "per dimension" if chosen["free_bits_over"] == "dimension" else "in all"
    if chosen["free_bits"]:
        yield f"free bits {chosen['free_bits']:g} {over}"
    if chosen["encoder_from"]:
        yield "encoder initialised"
    if chosen["bn_gamma"]:
        yield f"batch norm {chosen['bn_gamma']:g}"
    if chosen["committed_rate"]:
        yield f"committed rate {chosen['committed_rate']:g}"
