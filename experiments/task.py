"""Task: the interface between a corpus and the trainer (batches, evaluation, test).

experiments/translation_task.py is the only implementation. A new task is one file that implements
`Task`, passed as `train(..., task=...)`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jax.sharding import Mesh

from data.batch_schedule import BatchSchedule
from data.vocabulary import Vocabulary

if TYPE_CHECKING:  # they import this module
    from experiments.config import Experiment
    from experiments.run_context import RunContext
    from experiments.workdir import LoadedModel
    from train.loop import Hook


class TaskData(Protocol):
    """The splits of a corpus as token ids."""

    @property
    def schedule(self) -> BatchSchedule:
        """Which examples of the training split are in the batch of a step."""

    @property
    def digests(self) -> dict[str, str]:
        """Checksums of the splits, by their names in checkpoints."""

    def train_batches(
        self, schedule: BatchSchedule, step: int, mesh: Mesh, multiple_of: int
    ) -> Iterator[Any]:
        """The batches from `step` on, each laid out on the mesh.

        Their numbers of rows are multiples of `multiple_of`. A batch is a function of its step.
        """

    def eval_batches(self, split: str, mesh: Mesh) -> Iterator[Any]:
        """Each example of a split once, in batches on the mesh."""


class EvalResult(NamedTuple):
    """Scores of a test, and a function that stores the model's outputs."""

    scores: dict[str, Any]  # with "loss" and the tested "checkpoint"
    write_outputs: Callable[[], None]  # into the run's folder


class Task(Protocol):
    """Interface of a task. Its methods have no state."""

    outputs: str  # the file that `EvalResult.write_outputs` writes
    valid_metrics: tuple[str, ...]  # of the best checkpoint, in the last line of a run
    test_metrics: tuple[str, ...]

    def open_splits(self, experiment: "Experiment") -> Mapping[str, Any]:
        """The corpora "train", "valid" and "test". Raises DataError."""

    def read(
        self,
        experiment: "Experiment",
        splits: Mapping[str, Any],
        vocabulary: Vocabulary,
        on_progress: Callable[[], None],
    ) -> TaskData:
        """Tokenize and filter the splits, and schedule the batches. Raises DataError.

        `on_progress` is called for every chunk of text.
        """

    def warn(self, experiment: "Experiment") -> None:
        """Warn about settings that evaluation cannot use as they are."""

    def check(self, run: "RunContext") -> None:
        """Raise ConfigError for settings with which `hooks` or `test` would fail on this data.

        It is called before training, and allocates nothing on the devices.
        """

    def hooks(self, run: "RunContext") -> "list[Hook]":
        """Validation during training, without the checkpoint hook."""

    def test(
        self, run: "RunContext", best: "LoadedModel", stop: Callable[[int], None]
    ) -> EvalResult:
        """Evaluate the best checkpoint on the test split; `stop(0)` raises on preemption."""
