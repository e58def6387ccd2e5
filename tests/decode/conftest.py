"""Fixtures shared by the decoding tests: a vocabulary and model parameters."""

import numpy as np
import pytest

from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from tests.decode.tiny_model import CONFIG, WORDS, parameters


@pytest.fixture(scope="session")
def vocabulary():
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(WORDS, 8)) for _ in range(200)]
    tokenizer = Tokenizer.train(text, 300)
    return Vocabulary(tokenizer, tokenizer)


@pytest.fixture(scope="session")
def params():
    return parameters(CONFIG)
