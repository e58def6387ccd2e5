"""Task: how a corpus becomes batches, and how a model is evaluated on it.

experiments/translation_task.py is the one that there is. A task knows a corpus, the trainer knows
steps: a new task is one file that implements `Task`, and `train(..., task=...)` takes it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jax.sharding import Mesh

from data.batch_schedule import BatchSchedule
from data.vocabulary import Vocabulary

if TYPE_CHECKING:  # these know tasks themselves
    from experiments.config import Experiment
    from experiments.run_context import RunContext
    from experiments.workdir import LoadedModel
    from train.loop import Hook


class TaskData(Protocol):
    """The splits of a corpus as token ids."""

    @property
    def schedule(self) -> BatchSchedule:
        """Which examples of the training split make the batch of a step."""

    @property
    def digests(self) -> dict[str, str]:
        """Checksums of the splits, by the names that checkpoints store them under."""

    def train_batches(
        self, schedule: BatchSchedule, step: int, mesh: Mesh, multiple_of: int
    ) -> Iterator[Any]:
        """The batches of `step` and all later ones, each laid out on the mesh.

        Their rows are a multiple of `multiple_of`. A batch is a function of its step.
        """

    def eval_batches(self, split: str, mesh: Mesh) -> Iterator[Any]:
        """Each example of a split once, in batches on the mesh."""


class EvalResult(NamedTuple):
    """What a test measured, and how to store the model's outputs."""

    scores: dict[str, Any]  # with "loss" and the "checkpoint" that was tested
    write_outputs: Callable[[], None]  # into the run's folder


class Task(Protocol):
    """What the trainer asks of a task. All methods are functions of their arguments."""

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
        """Report settings that evaluation cannot use as they are."""

    def hooks(self, run: "RunContext") -> "list[Hook]":
        """Validation during training, without the checkpoint hook."""

    def test(
        self, run: "RunContext", best: "LoadedModel", stop: Callable[[int], None]
    ) -> EvalResult:
        """Evaluate the best checkpoint on the test split; `stop(0)` raises on preemption."""
