"""A vocabulary that grows: ids that are stored go on naming the same tokens."""

import pytest

from pattern_lens.errors import StoreError, WriterActiveError
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.verify import verify
from pattern_lens.store.vocabulary import extend_vocab
from pattern_lens.testing import write_random_file


@pytest.fixture
def path(tmp_path):
    write_random_file(tmp_path / "file.h5")
    return tmp_path / "file.h5"


def test_a_longer_one(path):
    reader = StoreReader(path)
    before, vocab = reader.tokens(0), reader.vocab
    longer = {column: [*words, "new", "é"] for column, words in vocab.items()}
    extend_vocab(path, longer)
    assert StoreReader(path).vocab == longer
    assert StoreReader(path).tokens(0) == before == reader.tokens(0)
    write_random_file(path, seed=1)  # can be written to as before
    assert verify(path, progress=False).ok


def test_another_one_is_refused(path):
    vocab = StoreReader(path).vocab
    other = {column: ["other", *words] for column, words in vocab.items()}
    with pytest.raises(StoreError, match="expected one that begins with the 10 tokens"):
        extend_vocab(path, other)
    assert StoreReader(path).vocab == vocab


def test_one_writer(path):
    vocab = StoreReader(path).vocab
    lock = WriterLock(path)
    with pytest.raises(WriterActiveError, match="is writing to it"):
        extend_vocab(path, vocab)
    lock.release()
