"""What `image.py` builds from: the keys of an image config, the splits, the model, and grids of pictures."""

import numpy as np
import torch
from PIL import Image

from modules import cli, latent
from modules.config import Key, check_config, check_model_flags, load_config, text, whole, wholes
from modules.data.images import ImageSplit, TrainingImages, load_images
from modules.models.decoders.pixelcnn import PixelCNNDecoder
from modules.models.encoders.gaussian_encoder import NoEncoder
from modules.models.encoders.resnet import ResNetEncoder
from modules.command import UserError
from modules.files import replacing
from modules.models.layers.precision import PRECISIONS
from modules.training.checkpoint import load_model_file, load_weights

KEYS = {
    "img_size": Key(wholes(1), "channels (1), height and width of an image"),
    "nz": Key(whole(1), "dimensions of z"),
    "enc_layers": Key(wholes(1), "channels of the encoder's residual blocks"),
    "dec_kernel_size": Key(wholes(1), "kernel size of the decoder's layers, odd, the first one's first"),
    "dec_layers": Key(wholes(1), "channels of the decoder's layers"),
    "latent_feature_map": Key(whole(1), "planes of the image's size that z becomes in the decoder"),
    "batch_size": Key(whole(2), "images in a batch"),
    "epochs": Key(whole(1), "epochs, at most"),
    "test_nepoch": Key(whole(1), "epochs between two evaluations on the test split"),
    "data_file": Key(text, "a .pt or .npz file of training, validation and test images"),
    **latent.keys(svi_steps=10),
}
GAP = 2         # pixels between two pictures of a grid
SCALE = 2       # pixels of the file for a pixel of an image, each way


def set_up(args, config, device):
    """What a run starts from: (VAE, splits, what a saved model says of itself)."""
    latent.check(args, config)
    model = build_vae(config, args.precision, f"config/config_{args.dataset}.py").to(device)
    splits = load_splits(config, device, args.train_limit)
    description = {"domain": "image", "dataset": args.dataset, "config": config,
                   "data": {name: split.fingerprint for name, split in splits.items()},
                   "args": cli.plain_arguments(args)}
    return model, splits, description


def load_splits(config, device, train_limit=None):
    """Read the images of a config: {"train": TrainingImages, "val", "test": ImageSplit}."""
    train, val, test = _load(config)
    try:
        return {"train": TrainingImages(train[:train_limit], config["batch_size"], device),
                "val": ImageSplit(val, config["batch_size"], device),
                "test": ImageSplit(test, config["batch_size"], device)}
    except ValueError as error:
        raise UserError(f"{config['data_file']}: {error}") from None


def load_test_split(config, device):
    """Read the test images of a config."""
    return ImageSplit(_load(config)[2], config["batch_size"], device)


def _load(config):
    splits = load_images(config["data_file"])
    if list(splits[0].shape[1:]) != config["img_size"]:
        raise UserError(f"{config['data_file']}: the images have size {list(splits[0].shape[1:])}, but the model "
                        f"is for img_size {config['img_size']}")
    return splits


def build_vae(config, precision="float32", source="config"):
    """An image VAE with the published initialisation.

    Raises UserError, naming the `source` of the config, if no model can be made of it.
    """
    nz = latent.dimensions(config)
    try:
        encoder = (ResNetEncoder(nz, config["img_size"], config["enc_layers"], latent.constraints(config)) if nz
                   else NoEncoder())
        decoder = PixelCNNDecoder(nz, config["img_size"], config["dec_kernel_size"], config["dec_layers"],
                                  config["latent_feature_map"], PRECISIONS[precision])
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    return latent.assemble(encoder, decoder, config)


def load_model(path, args, device):
    """A saved model on the device, in evaluation mode: (VAE, config).

    A checkpoint of this project has its config inside; a plain state dict, as the authors' code saves it, is read with
    that of the dataset.
    """
    content = load_model_file(path, "image")
    if "config" in content:
        config = check_config(content["config"], KEYS, {}, path)
        check_model_flags(vars(args), config, path)
    else:
        config = load_config(args.dataset, KEYS, vars(args))
        print(f"{path}: a plain state dict, {len(content['model'])} tensors; read with the config of {args.dataset}")
    model = build_vae(config, source=path)
    load_weights(model, content["model"], path)
    return model.to(device).eval(), config


def run_name(args):
    """What the name of an image run's files says of it."""
    return (f"{args.dataset}_aggressive{args.aggressive}_ns{args.nsamples}_kls{args.kl_start:.1f}_warm{args.warm_up}_"
            f"{cli.method_tag(args)}{args.jobid}_{args.taskid}_{args.seed}")


def save_grid(images, columns, path):
    """Write images [n, 1, height, width], values in [0, 1], as one PNG, row by row; 1 is black, atomically."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows, height + GAP, columns, width + GAP), 200, dtype=np.uint8)       # light grey between them
    for i, picture in enumerate((255 * (1 - images[:, 0])).round().to(torch.uint8).cpu().numpy()):
        canvas[i // columns, :height, i % columns, :width] = picture
    pixels = canvas.reshape(rows * (height + GAP), columns * (width + GAP))[:-GAP, :-GAP]
    with replacing(path) as temporary:
        Image.fromarray(pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)).save(temporary, format="png")
    print(f"wrote {path}")
