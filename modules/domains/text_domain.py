"""Text: LSTM encoder and decoder (paper, section 5.1 and appendix), sentences of one length in a batch."""

import torch

from modules import methods
from modules.data.corpus import TextSplit, read_corpus
from modules.domains.domain import IW, METHODS, TRAINING, Domain
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.models.encoders.gaussian_encoder import NoEncoder
from modules.models.encoders.lstm_encoder import LSTMEncoder
from modules.models.layers.precision import PRECISIONS
from modules.settings import Group, Setting, file_name, number, one_of, switch, whole
from modules.training.recipe import TEXT as RECIPE

ENCODERS, DECODERS = {"lstm": LSTMEncoder}, {"lstm": LSTMDecoder}  # by the names that a config gives them
MODEL = Group(
    "model",
    (
        Setting("enc_type", one_of(*ENCODERS), "encoder", "lstm", model=True),
        Setting("dec_type", one_of(*DECODERS), "decoder", "lstm", model=True),
        Setting("nz", whole(1), "dimensions of z", model=True),
        Setting("ni", whole(1), "dimensions of the word embeddings", model=True),
        Setting("enc_nh", whole(1), "hidden units of the encoder", model=True),
        Setting("dec_nh", whole(1), "hidden units of the decoder", model=True),
        Setting("dec_dropout_in", number("[0, 1)"), "dropout on the decoder's embeddings", model=True),
        Setting("dec_dropout_out", number("[0, 1)"), "dropout on the decoder's output", model=True),
    ),
)
DATA = Group(
    "data",
    (
        Setting("train_data", file_name, "training file", may_change=True),
        Setting("val_data", file_name, "validation file", may_change=True),
        Setting("test_data", file_name, "test file", may_change=True),
        Setting("label", switch, "whether a line is label<TAB>text", False),
        Setting("vocab_limit", whole(1), "keep only that many of the most frequent words", None),
        Setting("max_train_length", whole(1), "leave out training sentences of more words", None),
    ),
)


def read_splits(s, device, names, vocabulary=None):
    """({name: TextSplit}, Vocabulary) for names among "train", "val" and "test".

    Without `vocabulary` it is that of the training file; words that it lacks become `<unk>`.
    """
    splits = {}
    for name in names:
        training = name == "train"
        corpus, vocabulary = read_corpus(
            getattr(s, f"{name}_data"),
            None if training else vocabulary,
            s.label,
            s.train_limit if training else None,
            s.vocab_limit if training else None,
            s.max_train_length if training else None,
        )
        splits[name] = TextSplit(corpus, s.batch_size, device)
    return splits, vocabulary


def build_vae(s, vocabulary, source=None):
    """A text VAE with the published initialisation: weights from U(-0.01, 0.01), embeddings from U(-0.1, 0.1).

    What a method adds to the encoder starts as the method says.
    """
    size, nz = len(vocabulary), methods.dimensions(s)
    encoder = ENCODERS[s.enc_type](size, nz, s.ni, s.enc_nh, methods.constraints(s)) if nz else NoEncoder()
    noise = methods.word_noise(s)
    decoder = DECODERS[s.dec_type](
        size, nz, s.ni, s.dec_nh, s.dec_dropout_in, s.dec_dropout_out, PRECISIONS[s.precision], noise
    )
    model = methods.assemble(s, encoder, decoder)
    published = (item for item in model.named_parameters() if "constraints" not in item[0])
    for name, parameter in published:
        bound = 0.1 if "embed" in name else 0.01
        torch.nn.init.uniform_(parameter, -bound, bound)
    return model


TEXT = Domain(
    "text",
    (TRAINING, METHODS, MODEL, DATA, IW),
    "{dataset}_aggressive{aggressive}_kls{weight}_warm{warm_up}_{methods}{departures}{jobid}_{taskid}_{seed}",
    2,
    RECIPE,
    read_splits,
    build_vae,
    has_words=True,
)
