"""What `text.py` and the toy study share: the keys of a text config, the splits and the model built from it."""

import torch

from modules import cli, latent
from modules.config import Key, check_config, check_model_flags, fraction, load_config, one_of, text, whole, yes_no
from modules.data.corpus import TextSplit, Vocabulary, read_corpus
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.models.encoders.gaussian_encoder import NoEncoder
from modules.models.encoders.lstm_encoder import LSTMEncoder
from modules.models.layers.precision import PRECISIONS
from modules.training.checkpoint import load_model_file, load_weights

KEYS = {
    "enc_type": Key(one_of("lstm"), "encoder", "lstm"),
    "dec_type": Key(one_of("lstm"), "decoder", "lstm"),
    "nz": Key(whole(1), "dimensions of z"),
    "ni": Key(whole(1), "dimensions of the word embeddings"),
    "enc_nh": Key(whole(1), "hidden units of the encoder"),
    "dec_nh": Key(whole(1), "hidden units of the decoder"),
    "dec_dropout_in": Key(fraction, "dropout on the decoder's embeddings"),
    "dec_dropout_out": Key(fraction, "dropout on the decoder's output"),
    "batch_size": Key(whole(1), "sentences in a batch, at most"),
    "epochs": Key(whole(1), "epochs, at most"),
    "test_nepoch": Key(whole(1), "epochs between two evaluations on the test split"),
    "train_data": Key(text, "training file"),
    "val_data": Key(text, "validation file"),
    "test_data": Key(text, "test file"),
    "label": Key(yes_no, "whether a line is label<TAB>text", False),
    "vocab_limit": Key(whole(1), "keep only that many of the most frequent words (default: all)", None),
    **latent.keys(svi_steps=20),
}


def set_up(args, config, device):
    """What a run starts from: (VAE, splits, Vocabulary, what a saved model says of itself)."""
    latent.check(args, config)
    splits, vocabulary = load_splits(config, device, args.train_limit)
    model = build_vae(config, vocabulary, args.precision).to(device)
    description = {"domain": "text", "dataset": args.dataset, "config": config, "vocabulary": vocabulary.words,
                   "data": {name: split.fingerprint for name, split in splits.items()},
                   "args": cli.plain_arguments(args)}
    return model, splits, vocabulary, description


def load_splits(config, device, train_limit=None):
    """Read the three files of a config: ({"train", "val", "test"}: TextSplit, Vocabulary of the training file)."""
    corpus, vocabulary = read_corpus(config["train_data"], None, config["label"], train_limit, config["vocab_limit"])
    splits = {"train": TextSplit(corpus, config["batch_size"], device)}
    for name in ("val", "test"):
        splits[name] = load_split(config, name, vocabulary, device)
    return splits, vocabulary


def load_split(config, name, vocabulary, device):
    """Read one file of a config under a given vocabulary; words it lacks become `<unk>`."""
    corpus, _ = read_corpus(config[f"{name}_data"], vocabulary, label=config["label"])
    return TextSplit(corpus, config["batch_size"], device)


def build_vae(config, vocabulary, precision="float32"):
    """A text VAE with the published initialisation: weights from U(-0.01, 0.01), embeddings from U(-0.1, 0.1)."""
    size, nz = len(vocabulary), latent.dimensions(config)
    encoder = (LSTMEncoder(size, nz, config["ni"], config["enc_nh"], latent.constraints(config)) if nz
               else NoEncoder())
    decoder = LSTMDecoder(size, nz, config["ni"], config["dec_nh"], config["dec_dropout_in"],
                          config["dec_dropout_out"], PRECISIONS[precision])
    model = latent.assemble(encoder, decoder, config)
    for name, parameter in model.named_parameters():
        bound = 0.1 if "embed" in name else 0.01
        torch.nn.init.uniform_(parameter, -bound, bound)
    return model


def load_model(path, args, device):
    """A saved model on the device, in evaluation mode: (VAE, Vocabulary, config).

    A checkpoint of this project has its vocabulary and config inside. Of a plain state dict, as the authors' code saves
    it, the config is that of the dataset, and the vocabulary is made from its training file.
    """
    content = load_model_file(path, "text")
    if "config" in content:
        config = check_config(content["config"], KEYS, {}, path)
        check_model_flags(vars(args), config, path)
        vocabulary = Vocabulary.of_file(content.get("vocabulary"), path)
    else:
        config = load_config(args.dataset, KEYS, vars(args))
        _, vocabulary = read_corpus(config["train_data"], None, config["label"], args.train_limit,
                                    config["vocab_limit"])
        print(f"{path}: a plain state dict, {len(content['model'])} tensors; read with the config of {args.dataset} "
              f"and the {len(vocabulary)} words of {config['train_data']}")
    model = build_vae(config, vocabulary)
    load_weights(model, content["model"], path)
    return model.to(device).eval(), vocabulary, config
