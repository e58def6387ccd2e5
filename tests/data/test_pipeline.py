"""The plan against slow oracles: every pair once an epoch, any step at once, padding by hand."""

import itertools

import numpy as np
import pytest

from data.batch import EOS, PAD
from data.errors import DataError
from data.pairs import ParallelText
from data.pipeline import (
    BatchSchedule,
    Ragged,
    Shard,
    TokenPairs,
    eval_batches,
    filter_pairs,
    tokenize,
    train_batches,
)
from data.vocabulary import Vocabulary


def token_pairs(lengths):
    """Pairs of these lengths; every sentence has its own number in each of its ids."""
    sides = [[[4 + i] * n for i, n in enumerate(side)] for side in zip(*lengths, strict=True)]
    return TokenPairs(*map(Ragged, sides))


def some_pairs(count=300, seed=0, longest=30):
    rng = np.random.default_rng(seed)
    source = rng.integers(1, longest, count)
    target = np.clip(source + rng.integers(-3, 4, count), 1, longest - 1)
    return token_pairs(list(zip(source.tolist(), target.tolist(), strict=True)))


def some_plan(pairs, seed=0, **options):
    options = dict(count=4, tokens_per_batch=200, multiple_of=2) | options
    return BatchSchedule(pairs, np.arange(len(pairs.source)), seed, **options)


def sentences(batch):
    """The pairs in a batch, checked for shape and filling, as (number, source, target length)."""
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


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_tokens_decode_to_the_lines_they_were_made_of():
    english = [f"the {n}th  cat \u2581" for n in range(50)] + ["", " \t", "end"]
    german = [f"die {n}. Katze" for n in range(50)] + ["leer", "", "Ende"]
    pairs = ParallelText(english, german)
    vocabulary = Vocabulary.train(pairs, 300, shared=False)
    heard = []
    tokens = tokenize(pairs, vocabulary, heard.append, chunk=7)
    assert sum(heard) == len(pairs) == len(tokens.source) == len(tokens.target)
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
    assert str(report) == "4 pairs kept; dropped: 3 empty, 1 too long, 2 of unlike lengths"


def test_nothing_left_is_told():
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


def test_a_budget_too_small_is_told():
    with pytest.raises(
        DataError, match="tokens_per_batch=20 does not hold 8 rows of 6 tokens: .*48"
    ):
        some_plan(token_pairs([(5, 3)]), tokens_per_batch=20, multiple_of=8)


def test_every_pair_is_in_an_epoch_once_and_within_the_shapes_and_the_budget():
    pairs = some_pairs()
    plan = some_plan(pairs)
    shapes = {(bucket.rows, bucket.source, bucket.target) for bucket in plan.buckets}
    stream = train_batches(pairs, plan)
    for _ in range(3):
        batches = take(stream, plan.batches_per_epoch)
        found = sorted(itertools.chain.from_iterable(map(sentences, batches)))
        lengths = zip(pairs.source.lengths.tolist(), pairs.target.lengths.tolist(), strict=True)
        assert found == [(i, *both) for i, both in enumerate(lengths)]
        for batch in batches:
            assert batch.src.dtype == batch.tgt.dtype == np.int32
            assert (*batch.src.shape, batch.tgt.shape[1]) in shapes
            assert max(batch.src.size, batch.tgt.size) <= 200
    assert len(shapes) <= 4


def test_only_kept_pairs_are_used():
    pairs = some_pairs(100)
    kept = np.arange(1, 100, 3)
    plan = BatchSchedule(pairs, kept, 0, count=3, tokens_per_batch=200)
    batches = take(train_batches(pairs, plan), plan.batches_per_epoch)
    found = itertools.chain.from_iterable(map(sentences, batches))
    assert sorted(number for number, *_ in found) == kept.tolist()


def test_the_padding_share_is_the_one_counted_by_hand():
    pairs = some_pairs()
    plan = some_plan(pairs)
    batches = take(train_batches(pairs, plan), plan.batches_per_epoch)
    sides = [side for batch in batches for side in batch[:2]]
    share = sum((side == PAD).sum() for side in sides) / sum(side.size for side in sides)
    assert plan.padding == pytest.approx(share)
    assert f"padding {share:.1%}" in str(plan)
    assert f"{plan.batches_per_epoch} batches an epoch in {len(plan.buckets)} shapes" in str(plan)


def test_more_shapes_leave_less_padding():
    pairs = some_pairs(2000)
    padding = [some_plan(pairs, count=n, tokens_per_batch=900).padding for n in (1, 2, 4, 8)]
    assert padding == sorted(padding, reverse=True) and padding[-1] < padding[0] / 2


@pytest.mark.parametrize("start", [1, 7, 40, 1000])
def test_a_run_that_resumes_goes_on_as_the_other_one_did(start):
    pairs = some_pairs(100)
    whole = take(itertools.islice(train_batches(pairs, some_plan(pairs)), start, None), 25)
    resumed = take(train_batches(pairs, some_plan(pairs), start), 25)
    assert all(map(same, whole, resumed))


def test_a_far_step_is_found_at_once():
    pairs = some_pairs(100)
    plan = some_plan(pairs)
    made = []
    make = plan._make_epoch
    plan._epoch = lambda epoch: made.append(epoch) or make(epoch)
    plan[10**9]
    assert made == [10**9 // plan.batches_per_epoch]


def test_order_follows_seed_and_epoch():
    pairs = some_pairs()

    def order(seed, epoch):
        plan = some_plan(pairs, seed)
        first = epoch * plan.batches_per_epoch
        return [plan[first + i].pairs.tolist() for i in range(plan.batches_per_epoch)]

    assert order(0, 0) == order(0, 0) and order(5, 3) == order(5, 3)
    distinct = {str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(distinct) == 6
    plan = some_plan(pairs)
    buckets = [plan.buckets.index(plan[i].bucket) for i in range(plan.batches_per_epoch)]
    assert buckets != sorted(buckets)  # long and short batches take turns
    sets = {frozenset(map(frozenset, order(0, epoch))) for epoch in range(3)}
    assert len(sets) == 3  # not only the batches' order but who is in them


def test_a_plan_ahead_is_the_same_batches_at_earlier_steps():
    plan = some_plan(some_pairs())
    for offset in 7, -7:
        for step in range(10, 40):
            for mine, its in zip(plan.shifted(offset)[step], plan[step + offset], strict=True):
                np.testing.assert_array_equal(mine, its)


def test_hosts_share_the_rows_of_every_batch():
    pairs = some_pairs()
    plan = some_plan(pairs)
    whole = take(train_batches(pairs, plan, multiple_of=8), 9)
    of = lambda *parts: train_batches(pairs, plan, shard=Shard(parts, 4), multiple_of=8)  # noqa: E731
    hosts = [take(of(i), 9) for i in range(4)]
    for batch, both, *parts in zip(whole, take(of(3, 1), 9), *hosts, strict=True):
        parts = [part[:2] for part in parts]
        assert same(batch[:2], [np.concatenate(side) for side in zip(*parts, strict=True)])
        some = parts[3], parts[1]
        assert same(both[:2], [np.concatenate(side) for side in zip(*some, strict=True)])
    with pytest.raises(ValueError, match="of 8 rows are not 3 parts of the same size"):
        train_batches(pairs, plan, shard=Shard((0,), 3), multiple_of=8)
    whole = eval_batches(pairs, np.arange(90), tokens_per_batch=200, multiple_of=4)
    half = Shard((1, 3), 4)
    mine = eval_batches(pairs, np.arange(90), tokens_per_batch=200, multiple_of=4, shard=half)
    for batch, part in zip(whole, mine, strict=True):
        quarters = [np.split(side, 4) for side in batch[:2]]
        assert same(part[:2], [np.concatenate([side[1], side[3]]) for side in quarters])


@pytest.mark.parametrize("multiple", [2, 8, 64])
def test_a_mesh_changes_no_batch_but_for_empty_rows(multiple):
    pairs = some_pairs()
    plan = some_plan(pairs, multiple_of=1)
    assert any(bucket.rows % multiple for bucket in plan.buckets)
    one, many = (take(train_batches(pairs, plan, multiple_of=n), 20) for n in (1, multiple))
    for alone, batch in zip(one, many, strict=True):
        for here, there in zip(alone[:2], batch[:2], strict=True):
            assert len(there) % multiple == 0 and len(there) - len(here) < multiple
            np.testing.assert_array_equal(there[: len(here)], here)
            assert not there[len(here) :].any()


def test_large_batches_are_shared_evenly_by_eight():
    plan = some_plan(some_pairs(3000), tokens_per_batch=3000, multiple_of=3)
    assert all(bucket.rows % 24 == 0 for bucket in plan.buckets)
    small = some_plan(some_pairs(), multiple_of=1).buckets
    assert any(bucket.rows % 8 for bucket in small)


@pytest.mark.parametrize("extra", [[], [(0, 0), (0, 4), (500, 2), (2, 700)]])
def test_evaluation_sees_every_pair_once_whatever_its_length(extra):
    lengths = [(n % 20 + 1, n % 17 + 1) for n in range(101)] + extra
    pairs = token_pairs(lengths)
    everything = np.arange(len(lengths))
    batches = list(eval_batches(pairs, everything, tokens_per_batch=200, multiple_of=4))
    assert len({(b.src.shape, b.tgt.shape) for b in batches}) <= 4
    assert all(len(b.src) % 4 == 0 for b in batches)
    count = sum((side == EOS).sum() for b in batches for side in b[:2])
    assert count == 2 * len(lengths)
    tokens = sum((side != PAD).sum() for b in batches for side in b[:2])
    assert tokens == sum(s + t + 2 for s, t in lengths)
    for side, ids in enumerate(pairs):
        rows = [row[row > EOS].tolist() for b in batches for row in b[side] if row.any()]
        assert sorted(rows) == sorted(ids[i].tolist() for i in range(len(ids)))
    short = [b for b in batches if max(b.src.shape[1], b.tgt.shape[1]) * 4 <= 200]
    assert short and all(max(b.src.size, b.tgt.size) <= 200 for b in short)


def test_evaluation_can_be_of_some_pairs():
    pairs = token_pairs([(3, 4), (700, 2), (5, 1)])
    batches = eval_batches(pairs, np.array([0, 2]), tokens_per_batch=200)
    rows = [row[row > EOS].tolist() for b in batches for row in b.src]
    assert sorted(rows) == sorted(pairs.source[i].tolist() for i in (0, 2))


def test_a_digest_tells_texts_apart():
    one, same, other = (
        TokenPairs(Ragged(source), Ragged([[7], [8]])).digest()
        for source in ([[4, 5], [6]], [[4, 5], [6]], [[4], [5, 6]])
    )
    assert one == same != other
