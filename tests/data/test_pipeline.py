"""The data pipeline: filters, batch schedule, sharding and evaluation batches."""

import itertools

import numpy as np
import pytest

from data.batch import EOS, PAD
from data.errors import DataError
from data.pairs import ParallelText
from data.pipeline import (
    BatchSchedule,
    BatchShards,
    Ragged,
    TokenPairs,
    eval_batches,
    filter_pairs,
    tokenize,
    train_batches,
)
from data.vocabulary import Vocabulary


def token_pairs(lengths):
    """Pairs of the given lengths; all ids of pair i are 4 + i."""
    sides = [[[4 + i] * n for i, n in enumerate(side)] for side in zip(*lengths, strict=True)]
    return TokenPairs(*map(Ragged, sides))


def random_pairs(count=300, seed=0, max_length=30):
    rng = np.random.default_rng(seed)
    source = rng.integers(1, max_length, count)
    target = np.clip(source + rng.integers(-3, 4, count), 1, max_length - 1)
    return token_pairs(list(zip(source.tolist(), target.tolist(), strict=True)))


def make_schedule(pairs, seed=0, **options):
    options = dict(count=4, tokens_per_batch=200, multiple_of=2) | options
    return BatchSchedule(pairs, np.arange(len(pairs.source)), seed, **options)


def sentences(batch):
    """Pairs of a batch as (number, source length, target length), after checking its padding."""
    for src, tgt in zip(batch.src.tolist(), batch.tgt.tolist(), strict=True):
        if not any(src) and not any(tgt):
            continue
        lengths = []
        for row in (src, tgt):
            end = row.index(EOS)
            assert not any(row[end + 1 :])
            assert set(row[:end]) <= {src[0]}
            lengths.append(end)
        yield src[0] - 4, *lengths


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def arrays_equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_tokens_decode_to_their_lines():
    english = [f"the {n}th  cat \u2581" for n in range(50)] + ["", " \t", "end"]
    german = [f"die {n}. Katze" for n in range(50)] + ["leer", "", "Ende"]
    pairs = ParallelText(english, german)
    vocabulary = Vocabulary.train(pairs, 300, shared=False)
    progress = []
    tokens = tokenize(pairs, vocabulary, progress.append, chunk=7)
    assert sum(progress) == len(pairs) == len(tokens.source) == len(tokens.target)
    for side, tokenizer, lines in zip(tokens, vocabulary, (english, german), strict=True):
        assert side.ids.dtype == np.int32
        rows = [side[i].tolist() for i in range(len(side))]
        assert side.lengths.tolist() == list(map(len, rows))
        assert tokenizer.decode(rows) == [line if line.strip() else "" for line in lines]


def test_filters_count_what_they_drop():
    lengths = [
        (5, 5),
        (0, 5),
        (5, 0),
        (0, 0),
        (20, 5),
        (19, 19),
        (19, 9),
        (9, 19),
        (18, 9),
        (9, 1),
    ]
    kept, report = filter_pairs(token_pairs(lengths), max_length=20, max_ratio=2.0)
    assert kept.tolist() == [0, 5, 8, 9]
    assert (report.kept, report.empty, report.too_long, report.ratio) == (4, 3, 1, 2)
    assert str(report) == "4 pairs kept; dropped: 3 empty, 1 too long, 2 over the length ratio"


def test_a_text_without_usable_pairs_is_rejected():
    pairs = token_pairs([(0, 1), (50, 50)])
    with pytest.raises(DataError) as error:
        filter_pairs(pairs, 20, 2.0, "the valid split (a.en and a.de)")
    assert str(error.value) == (
        "no pair of the valid split (a.en and a.de) can be used: 1 with a blank side, "
        "1 with over 20 tokens (raise --config.data.max_length)"
    )
    with pytest.raises(DataError, match="can be used: 1 with lengths that .* the factor 2 .*ratio"):
        filter_pairs(token_pairs([(5, 15)]), 20, 2.0)
    with pytest.raises(DataError, match="no pair of the text can be used: there are no pairs"):
        filter_pairs(TokenPairs(Ragged([]), Ragged([])), 20, 2.0)


def test_a_token_budget_that_is_too_small_is_rejected():
    with pytest.raises(
        DataError, match="tokens_per_batch=20 does not hold 8 rows of 6 tokens: .*48"
    ):
        make_schedule(token_pairs([(5, 3)]), tokens_per_batch=20, multiple_of=8)


def test_every_pair_is_in_each_epoch_once_within_the_token_budget():
    pairs = random_pairs()
    schedule = make_schedule(pairs)
    shapes = {(bucket.rows, bucket.source, bucket.target) for bucket in schedule.buckets}
    stream = train_batches(pairs, schedule)
    for _ in range(3):
        batches = take(stream, schedule.batches_per_epoch)
        actual = sorted(itertools.chain.from_iterable(map(sentences, batches)))
        lengths = zip(pairs.source.lengths.tolist(), pairs.target.lengths.tolist(), strict=True)
        assert actual == [(i, *pair_lengths) for i, pair_lengths in enumerate(lengths)]
        for batch in batches:
            assert batch.src.dtype == batch.tgt.dtype == np.int32
            assert (*batch.src.shape, batch.tgt.shape[1]) in shapes
            assert max(batch.src.size, batch.tgt.size) <= 200
    assert len(shapes) <= 4


def test_only_kept_pairs_are_used():
    pairs = random_pairs(100)
    kept = np.arange(1, 100, 3)
    schedule = BatchSchedule(pairs, kept, 0, count=3, tokens_per_batch=200)
    batches = take(train_batches(pairs, schedule), schedule.batches_per_epoch)
    actual = itertools.chain.from_iterable(map(sentences, batches))
    assert sorted(number for number, *_ in actual) == kept.tolist()


def test_the_padding_fraction_is_correct():
    pairs = random_pairs()
    schedule = make_schedule(pairs)
    batches = take(train_batches(pairs, schedule), schedule.batches_per_epoch)
    sides = [side for batch in batches for side in batch[:2]]
    fraction = sum((side == PAD).sum() for side in sides) / sum(side.size for side in sides)
    assert schedule.padding == pytest.approx(fraction)
    assert f"padding {fraction:.1%}" in str(schedule)
    assert (
        f"{schedule.batches_per_epoch} batches an epoch in {len(schedule.buckets)} shapes"
        in str(schedule)
    )


def test_more_buckets_mean_less_padding():
    pairs = random_pairs(2000)
    padding = [make_schedule(pairs, count=n, tokens_per_batch=900).padding for n in (1, 2, 4, 8)]
    assert padding == sorted(padding, reverse=True) and padding[-1] < padding[0] / 2


@pytest.mark.parametrize("start", [1, 7, 40, 1000])
def test_resuming_continues_with_the_same_batches(start):
    pairs = random_pairs(100)
    uninterrupted = take(
        itertools.islice(train_batches(pairs, make_schedule(pairs)), start, None), 25
    )
    resumed = take(train_batches(pairs, make_schedule(pairs), start), 25)
    equal = [arrays_equal(*both) for both in zip(uninterrupted, resumed, strict=True)]
    assert len(equal) == 25 and all(equal)


def test_a_distant_step_takes_constant_time():
    pairs = random_pairs(100)
    schedule = make_schedule(pairs)
    epochs = []
    make_epoch = schedule._make_epoch
    schedule._epoch = lambda epoch: epochs.append(epoch) or make_epoch(epoch)
    schedule[10**9]
    assert epochs == [10**9 // schedule.batches_per_epoch]


def test_the_order_depends_on_seed_and_epoch():
    pairs = random_pairs()

    def order(seed, epoch):
        schedule = make_schedule(pairs, seed)
        first = epoch * schedule.batches_per_epoch
        return [schedule[first + i].pairs.tolist() for i in range(schedule.batches_per_epoch)]

    assert order(0, 0) == order(0, 0) and order(5, 3) == order(5, 3)
    distinct = {str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(distinct) == 6
    schedule = make_schedule(pairs)
    buckets = [
        schedule.buckets.index(schedule[i].bucket) for i in range(schedule.batches_per_epoch)
    ]
    assert buckets != sorted(buckets)  # long and short batches are mixed
    sets = {frozenset(map(frozenset, order(0, epoch))) for epoch in range(3)}
    assert len(sets) == 3  # epochs differ in batch contents, not only in order


def test_a_shifted_schedule_has_the_same_batches():
    schedule = make_schedule(random_pairs())
    for offset in 7, -7:
        for step in range(10, 40):
            for actual, expected in zip(
                schedule.shifted(offset)[step], schedule[step + offset], strict=True
            ):
                np.testing.assert_array_equal(actual, expected)


def test_shards_partition_the_rows_of_every_batch():
    pairs = random_pairs()
    schedule = make_schedule(pairs)
    batches = take(train_batches(pairs, schedule, multiple_of=8), 9)

    def batches_of(*parts):
        return train_batches(pairs, schedule, shard=BatchShards(parts, 4), multiple_of=8)

    hosts = [take(batches_of(i), 9) for i in range(4)]
    for batch, two_shards, *parts in zip(batches, take(batches_of(3, 1), 9), *hosts, strict=True):
        parts = [part[:2] for part in parts]
        assert arrays_equal(batch[:2], [np.concatenate(side) for side in zip(*parts, strict=True)])
        expected_shards = parts[3], parts[1]
        assert arrays_equal(
            two_shards[:2], [np.concatenate(side) for side in zip(*expected_shards, strict=True)]
        )
    with pytest.raises(ValueError, match="of 8 rows are not 3 parts of the same size"):
        train_batches(pairs, schedule, shard=BatchShards((0,), 3), multiple_of=8)
    batches = eval_batches(pairs, np.arange(90), tokens_per_batch=200, multiple_of=4)
    half = BatchShards((1, 3), 4)
    local = eval_batches(pairs, np.arange(90), tokens_per_batch=200, multiple_of=4, shard=half)
    for batch, part in zip(batches, local, strict=True):
        quarters = [np.split(side, 4) for side in batch[:2]]
        assert arrays_equal(part[:2], [np.concatenate([side[1], side[3]]) for side in quarters])


@pytest.mark.parametrize("multiple", [2, 8, 64])
def test_multiple_of_only_adds_empty_rows(multiple):
    pairs = random_pairs()
    schedule = make_schedule(pairs, multiple_of=1)
    assert any(bucket.rows % multiple for bucket in schedule.buckets)
    unpadded, padded = (
        take(train_batches(pairs, schedule, multiple_of=n), 20) for n in (1, multiple)
    )
    for batch, padded_batch in zip(unpadded, padded, strict=True):
        for rows, padded_rows in zip(batch[:2], padded_batch[:2], strict=True):
            assert len(padded_rows) % multiple == 0 and len(padded_rows) - len(rows) < multiple
            np.testing.assert_array_equal(padded_rows[: len(rows)], rows)
            assert not padded_rows[len(rows) :].any()


def test_large_batches_are_divisible_by_eight():
    schedule = make_schedule(random_pairs(3000), tokens_per_batch=3000, multiple_of=3)
    assert schedule.buckets and all(bucket.rows % 24 == 0 for bucket in schedule.buckets)
    small = make_schedule(random_pairs(), multiple_of=1).buckets
    assert any(bucket.rows % 8 for bucket in small)


@pytest.mark.parametrize("extra", [[], [(0, 0), (0, 4), (500, 2), (2, 700)]])
def test_evaluation_has_every_pair_once_at_any_length(extra):
    lengths = [(n % 20 + 1, n % 17 + 1) for n in range(101)] + extra
    pairs = token_pairs(lengths)
    all_indices = np.arange(len(lengths))
    batches = list(eval_batches(pairs, all_indices, tokens_per_batch=200, multiple_of=4))
    assert len({(b.src.shape, b.tgt.shape) for b in batches}) <= 4
    assert all(len(b.src) % 4 == 0 for b in batches)
    count = sum((side == EOS).sum() for b in batches for side in b[:2])
    assert count == 2 * len(lengths)
    tokens = sum((side != PAD).sum() for b in batches for side in b[:2])
    assert tokens == sum(s + t + 2 for s, t in lengths)
    for side, ids in enumerate(pairs):
        rows = [row[row > EOS].tolist() for b in batches for row in b[side] if row.any()]
        assert sorted(rows) == sorted(ids[i].tolist() for i in range(len(ids)))
    small_batches = [b for b in batches if max(b.src.shape[1], b.tgt.shape[1]) * 4 <= 200]
    assert small_batches and all(max(b.src.size, b.tgt.size) <= 200 for b in small_batches)


def test_evaluation_of_selected_pairs():
    pairs = token_pairs([(3, 4), (700, 2), (5, 1)])
    batches = eval_batches(pairs, np.array([0, 2]), tokens_per_batch=200)
    rows = [row[row > EOS].tolist() for b in batches for row in b.src]
    assert sorted(rows) == sorted(pairs.source[i].tolist() for i in (0, 2))


def test_digests_distinguish_texts():
    first, arrays_equal, other = (
        TokenPairs(Ragged(source), Ragged([[7], [8]])).digest()
        for source in ([[4, 5], [6]], [[4, 5], [6]], [[4], [5, 6]])
    )
    assert first == arrays_equal != other
