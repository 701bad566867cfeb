"""Word dropout (Bowman et al. 2016): in training the decoder does not read every word, and has to ask z."""

import torch
from torch import nn

from modules.data.corpus import Vocabulary
from modules.methods.method import Method
from modules.settings import Setting, exactly, number


class UnreadWords(nn.Module):
    """While training, each word but the first, `<s>`, is `<unk>` with probability `share`, independently."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, words):
        """words: ids [time, batch], the first row `<s>` -> the same shape."""
        if not self.training:
            return words
        unread = torch.rand(words.shape, device=words.device) < self.share
        unread[0] = False
        return words.masked_fill(unread, Vocabulary.unk)


class WordDropout(Method):
    """`--word_dropout 0.25`, of text: the words that the decoder predicts stay, as do those that the encoder reads.

    Evaluation and decoding read every word, and so does the refinement of `--model savae`, as it sees no dropout. With
    1 the decoder reads none, Bowman et al.'s "inputless" one.
    """

    settings = (
        Setting(
            "word_dropout", number("[0, 1]"), "share of the decoder's input words that become <unk> in training", 0.0
        ),
    )

    def tag(self, s):
        return f"wdrop{exactly(s.word_dropout)}"

    def addition(self, s):
        return f", word dropout {exactly(s.word_dropout)}"

    def word_noise(self, s):
        return UnreadWords(s.word_dropout)
