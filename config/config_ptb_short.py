"""The sentences of 4 to 13 words of Penn Treebank, on which z is easily lost."""

params = {
    "enc_type": "lstm",
    "dec_type": "lstm",
    "nz": 32,
    "ni": 64,
    "enc_nh": 64,
    "dec_nh": 64,
    "dec_dropout_in": 0.5,
    "dec_dropout_out": 0.5,
    "batch_size": 32,
    "epochs": 25,
    "test_nepoch": 5,
    "train_data": "datasets/ptb_short_data/ptb_short.train.txt",
    "val_data": "datasets/ptb_short_data/ptb_short.valid.txt",
    "test_data": "datasets/ptb_short_data/ptb_short.test.txt",
    "vocab_limit": 5000,
}
