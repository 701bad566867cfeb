"""What a method of the comparison may decide; what it leaves alone is as in the plain VAE."""


class Method:
    """One method: its settings, its equations, its part of a run's name, what tables call it, what it excludes.

    `settings` are the `Setting`s that it brings. In every function s are the `Settings` of a run; it is only asked when
    `used(s)`, but for `check`.
    """

    settings = ()
    model = None  # the value of `--model` that asks for it, if it is a model of its own

    def used(self, s):
        """Whether a run makes use of it: by default, if one of its settings, where the domain has it, differs from its
        default."""
        if self.model:
            return s.model == self.model
        return any(getattr(s, setting.name, setting.default) != setting.default for setting in self.settings)

    def tag(self, s):
        """Its part of a run's name."""
        return self.model or ""

    def title(self, s):
        """What tables call a model of its own ("SA-VAE"); a method without one changes no title."""
        return None

    def addition(self, s):
        """What tables add to the title (" + anneal", ", batch norm 0.6")."""
        return ""

    def check(self, s):
        """Raise UserError for settings that exclude each other."""

    # What it does to the objective: loss = reconstruction + kl_weight * kl_penalty.

    def kl_weight(self, s, iteration, batches_per_epoch):
        """A factor of the KL's weight in outer iteration `iteration` (the first is 0)."""
        return 1.0

    def kl_penalty(self, s, kl):
        """The KL of each dimension [batch, nz] as it is to be penalised, [batch, any], in nats."""
        return kl

    def validation_loss(self, s, metrics):
        """What decides which model is the best, from the validation split's `Metrics`; None: the negative ELBO."""
        return None

    # What it does to the training.

    def recipe(self, s, recipe):
        """The constants of training (`modules.training.recipe.Recipe`) as it wants them."""
        return recipe

    # What it does to the model.

    def constraint(self, s):
        """A module that maps mean and log-variance of q(z|x) to others, or None."""
        return None

    def word_noise(self, s):
        """A module that changes the words which a text decoder reads in training, [time, batch] both, or None."""
        return None

    def assemble(self, s, encoder, decoder):
        """The model made of the two networks, where it is not a `VAE`, else None."""
        return None

    def begin(self, s, model, description):
        """Change the model before training begins; `description` is what a saved model says of itself."""

    def after_epoch(self, s, model, split):
        """Change the model after an epoch over the training split, before it is evaluated, and perhaps kept."""
