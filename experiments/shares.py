"""Work that processes share out, each on its own devices: translating, and the loss of a test."""

from collections.abc import Callable, Iterable, Sequence

import jax
from jax.sharding import Mesh

from data.batch import Batch
from decode.options import NothingFoundError
from decode.translate import Translator
from model.sharding import batch_sharding
from train.loop import Interrupted, total_metrics
from train.loss import Metrics
from train.together import Agreement, gathered

_UNFINISHED = "unfinished"


def translate(
    translator: Translator,
    sentences: Sequence[str],
    progress: Callable[[int], None],
    interrupted: Callable[[], str] = lambda: "",
) -> list[str]:
    """Every sentence's best translation, in all processes; each searches for its share of them.

    The translators are of the same weights, each on its process's devices. After every batch the
    processes hear whether one of them is `interrupted`: then all raise Interrupted with that
    reason. Raises NothingFoundError everywhere where one process does.
    """
    agree = Agreement((_UNFINISHED, "SIGTERM"))

    def meet(*mine: str) -> bool:
        said = agree({*mine, interrupted()} - {""})
        if reasons := said - {_UNFINISHED}:
            raise Interrupted(reasons.pop())
        return _UNFINISHED in said

    def hear(done: int) -> None:
        progress(done * jax.process_count())
        meet(_UNFINISHED)

    own, error = sentences[jax.process_index() :: jax.process_count()], None
    try:
        found = translator.translate(own, hear) if own else []
    except NothingFoundError as raised:
        found, error = None, raised
    while meet():
        pass  # others have more batches, or slower ones
    shares = gathered(found)
    if None in shares:
        raise error or NothingFoundError("in another process's share")
    texts = [""] * len(sentences)
    for process, share in enumerate(shares):
        texts[process :: len(shares)] = share
    return texts


def total(eval_fn: Callable[..., Metrics], params, batches: Iterable[Batch], mesh: Mesh) -> Metrics:
    """The sums of `eval_fn` over all batches, of which each process takes every so many.

    Parameters are whole on `mesh`, of the process's own devices.
    """
    index, count = jax.process_index(), jax.process_count()
    rows = batch_sharding(mesh)
    own = (jax.device_put(b, rows) for i, b in enumerate(batches) if i % count == index)
    sums = gathered([float(each) for each in total_metrics(eval_fn, params, own)])
    return sum((Metrics(*each) for each in sums), Metrics.zero())
