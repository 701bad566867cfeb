"""Omniglot at 28 x 28 with a network small enough for a CPU core."""

params = {
    "img_size": [1, 28, 28],
    "nz": 32,
    "enc_layers": [16, 32, 32],
    "dec_kernel_size": [7, 5, 3, 3],
    "dec_layers": [16] * 4,
    "latent_feature_map": 4,
    "batch_size": 50,
    "epochs": 100,
    "test_nepoch": 10,
    "data_file": "datasets/omniglot_data/omniglot.pt",
}
