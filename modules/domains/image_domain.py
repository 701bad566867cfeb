"""Images: ResNet encoder and PixelCNN decoder (paper, section 5.2 and appendix), binarised anew when drawn."""

from modules import methods
from modules.command import UserError
from modules.data.images import ImageSplit, TrainingImages, load_images
from modules.domains.domain import IW, METHODS, TRAINING, Domain, changed
from modules.models.decoders.pixelcnn import PixelCNNDecoder
from modules.models.encoders.gaussian_encoder import NoEncoder
from modules.models.encoders.resnet import ResNetEncoder
from modules.models.layers.precision import PRECISIONS
from modules.settings import Group, Setting, file_name, number, whole, wholes
from modules.training.recipe import IMAGE as RECIPE

MODEL = Group(
    "model",
    (
        Setting("img_size", wholes(1), "channels (1), height and width of an image", model=True),
        Setting("nz", whole(1), "dimensions of z", model=True),
        Setting("enc_layers", wholes(1), "channels of the encoder's residual blocks", model=True),
        Setting("dec_kernel_size", wholes(1), "odd kernel sizes of the decoder's layers, in their order", model=True),
        Setting("dec_layers", wholes(1), "channels of the decoder's layers", model=True),
        Setting("latent_feature_map", whole(1), "planes of the image's size that z becomes in the decoder", model=True),
    ),
)
DATA = Group("data", (Setting("data_file", file_name, "a .pt or .npz file of all three splits", may_change=True),))


def read_splits(s, device, names, vocabulary=None):
    """({name: TrainingImages or ImageSplit}, None) for names among "train", "val" and "test"."""
    images = dict(zip(("train", "val", "test"), load_images(s.data_file)))
    if list(images["train"].shape[1:]) != s.img_size:
        raise UserError(
            f"{s.data_file}: the images have size {list(images['train'].shape[1:])}, but the model is for "
            f"img_size {s.img_size}"
        )
    try:
        return {
            name: TrainingImages(images[name][: s.train_limit], s.batch_size, device)
            if name == "train"
            else ImageSplit(images[name], s.batch_size, device)
            for name in names
        }, None
    except ValueError as error:
        raise UserError(f"{s.data_file}: {error}") from None


def build_vae(s, vocabulary=None, source="config"):
    """An image VAE with the published initialisation.

    Raises UserError, naming the `source` of the settings, if no model can be made of them.
    """
    nz = methods.dimensions(s)
    try:
        encoder = ResNetEncoder(nz, s.img_size, s.enc_layers, methods.constraints(s)) if nz else NoEncoder()
        decoder = PixelCNNDecoder(
            nz, s.img_size, s.dec_kernel_size, s.dec_layers, s.latent_feature_map, PRECISIONS[s.precision]
        )
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    return methods.assemble(s, encoder, decoder)


GROUPS = (
    changed(
        TRAINING,
        batch_size={"kind": whole(2)},  # for batch norm
        lr={"default": RECIPE.lr, "help": "learning rate at the start"},
        optimizer=None,
        momentum={"kind": number("[0, 0]"), "help": "0, as in the published commands: Adam has its own"},
    ),
    changed(METHODS, svi_steps={"default": 10}, word_dropout=None),
    MODEL,
    DATA,
    IW,
)
IMAGE = Domain(
    "image",
    GROUPS,
    "{dataset}_aggressive{aggressive}_ns{nsamples}_kls{weight}_warm{warm_up}_{methods}{departures}{jobid}_{taskid}_{seed}",
    1,
    RECIPE,
    read_splits,
    build_vae,
)
