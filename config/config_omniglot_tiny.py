"""Omniglot at 28 x 28 with a network of two decoder layers: for the small table of results."""

params = {
    "img_size": [1, 28, 28],
    "nz": 32,
    "enc_layers": [16, 16, 32],
    "dec_kernel_size": [7, 5],
    "dec_layers": [16, 16],
    "latent_feature_map": 4,
    "batch_size": 16,
    "epochs": 10,
    "test_nepoch": 50,
    "data_file": "datasets/omniglot_data/omniglot.pt",
}
