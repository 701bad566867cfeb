"""Penn Treebank with a network small enough for a CPU core: for the small table of results."""

params = {
    "enc_type": "lstm",
    "dec_type": "lstm",
    "nz": 32,
    "ni": 50,
    "enc_nh": 50,
    "dec_nh": 50,
    "dec_dropout_in": 0.5,
    "dec_dropout_out": 0.5,
    "batch_size": 32,
    "epochs": 25,
    "test_nepoch": 50,
    "vocab_limit": 1000,
    "train_data": "datasets/ptb_data/ptb.train.txt",
    "val_data": "datasets/ptb_data/ptb.valid.txt",
    "test_data": "datasets/ptb_data/ptb.test.txt",
}
