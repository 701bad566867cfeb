"""Omniglot at 28 x 28 with the published architecture."""

params = {
    "img_size": [1, 28, 28],
    "nz": 32,
    "enc_layers": [64, 64, 64],
    "dec_kernel_size": [7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3],
    "dec_layers": [64] * 13,
    "latent_feature_map": 4,
    "batch_size": 50,
    "epochs": 1000,
    "test_nepoch": 5,
    "data_file": "datasets/omniglot_data/omniglot.pt",
}
