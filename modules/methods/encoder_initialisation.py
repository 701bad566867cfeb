"""Starting with the encoder of a saved model, such as an autoencoder (Li et al. 2019)."""

import math

from modules.checkpoint import load_model_file, load_weights
from modules.command import UserError, note
from modules.methods.method import Method
from modules.settings import Setting, file_name

LITTLE = 0.1  # nats of information below which an encoder is remarked on


class EncoderInitialisation(Method):
    """`--encoder_from M`, together with free bits and annealing."""

    settings = (Setting("encoder_from", file_name, "start with the encoder of this saved model", None),)

    def tag(self, s):
        return "init"

    def addition(self, s):
        return ", encoder initialised"

    def begin(self, s, model, description):
        """Load the encoder; the decoder stays as it is, as do constraints on the posterior.

        Raises UserError if the file is no model of the same domain, vocabulary and encoder.
        """
        content = load_model_file(s.encoder_from, description["domain"])
        if content.get("vocabulary", description.get("vocabulary")) != description.get("vocabulary"):
            raise UserError(
                f"{s.encoder_from}: its vocabulary is not that of this run's training data; its encoder "
                "would read other words; train it on the same sentences"
            )
        weights = {
            name.removeprefix("encoder."): value
            for name, value in content["model"].items()
            if name.startswith("encoder.") and not name.startswith("encoder.constraints.")
        }
        weights.update(
            {name: value for name, value in model.encoder.state_dict().items() if name.startswith("constraints.")}
        )
        load_weights(model.encoder, weights, s.encoder_from)
        known = content.get("metrics", {}).get("mi_agg", math.inf)
        if isinstance(known, float) and known < LITTLE:
            note(f"{s.encoder_from}: its encoder tells next to nothing of x, mi_agg {known:.2f} nats")
