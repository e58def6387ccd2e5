"""Search options: every method and setting by name, validated."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from data.batch import EOS

METHODS = ("beam", "greedy", "sample", "mbr")
PENALTIES = ("gnmt", "average", "none")
STOPPING = ("full", "unbeaten", "unbeatable", "limit")
METHOD_OPTIONS = {
    "beam": (
        "beam_size",
        "stopping",
        "free_eos_at_limit",
        "patience",
        "num_groups",
        "diversity_penalty",
        "coverage",
    ),
    "sample": ("num_samples", "temperature", "top_k", "top_p", "min_p", "seed"),
    "mbr": ("utility",),
}
MAX_COUNT = 1 << 20  # above the tokens or outputs of any search
_RANGES = {  # float32 scores stay finite, and ordered, within these
    **dict.fromkeys(
        ("beam_size", "num_groups", "num_samples", "n_best", "min_length"), (1, MAX_COUNT)
    ),
    **dict.fromkeys(
        ("max_length", "max_length_offset", "no_repeat_ngrams", "top_k"), (0, MAX_COUNT)
    ),
    "forced_bos_id": (0, MAX_COUNT),
    "seed": (0, 2**32 - 1),
    "alpha": (-10, 10),
    "coverage": (0, 1000),
    "diversity_penalty": (0, 1000),
    "max_ratio": (0, 1000),
    "patience": (0.001, 1000),
    "temperature": (0.001, 1000),
    "repetition_penalty": (0.001, 1000),
    "top_p": (0.001, 1),
    "min_p": (0, 1),
}


class InputError(ValueError):
    """Invalid input; the message is one line with the location and a remedy."""


class NoHypothesisError(InputError):
    """No output has a finite score: too many constraints, or corrupt weights."""


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search, frozen and hashable. Raises InputError for invalid combinations.

    Lengths count tokens, EOS included.
    """

    method: str = "beam"  # or greedy, sample, mbr (the sample most similar to the others)
    beam_size: int = 4
    penalty: str = "gnmt"  # ((5+n)/6)^alpha; average: n^alpha; none
    alpha: float = 0.6
    coverage: float = 0.0  # beta of the coverage penalty
    stopping: str = "full"  # or unbeaten, unbeatable, limit: see decode/stopping.py
    free_eos_at_limit: bool = False  # EOS does not change the score at the length limit
    patience: float = 1.0  # `full` waits for patience * beam_size finished hypotheses
    num_groups: int = 1  # of a diverse beam search
    diversity_penalty: float = 0.5  # for a token that an earlier group selected
    num_samples: int = 1
    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    utility: str = "chrf"  # or bleu: the similarity for mbr
    n_best: int = 1
    min_length: int = 1
    max_length: int = 0  # 0: only the following two limits
    max_ratio: float = 0.0  # times the source's length; 0: no such limit
    max_length_offset: int = 50  # more than the source's tokens
    no_repeat_ngrams: int = 0
    repetition_penalty: float = 1.0
    banned: tuple[tuple[int, ...], ...] = ()  # sequences of ids
    allow_unknown: bool = False  # whether UNK is allowed
    renormalize: bool = False  # log-probabilities over EOS and text tokens only
    forced_bos_id: int = 0  # the first id of every output, at no cost; 0: any

    def __post_init__(self):
        for name, choices in {
            "method": METHODS,
            "penalty": PENALTIES,
            "stopping": STOPPING,
            "utility": ("chrf", "bleu"),
        }.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"--{name}={getattr(self, name)} is not one of: {', '.join(choices)}"
                )
        for name, (minimum, maximum) in _RANGES.items():
            value = getattr(self, name)
            if not minimum <= value <= maximum:
                raise InputError(f"--{name}={value} must be from {minimum} to {maximum}")
        if not all(self.banned):
            raise InputError("a banned sequence has no ids")
        self._check_combinations()

    def _check_combinations(self) -> None:
        self.reject_unused(name for name in _DEFAULTS if getattr(self, name) != _DEFAULTS[name])
        if self.beam_size % self.num_groups:
            raise InputError(
                f"--num_groups={self.num_groups} must divide --beam_size={self.beam_size}"
            )
        if self.max_length and self.min_length > self.max_length:
            raise InputError(
                f"--min_length={self.min_length} is more than --max_length={self.max_length}"
            )
        if self.n_best > self.width:
            remedies = {"beam": "raise --beam_size", "greedy": "use --method=beam"}
            raise InputError(
                f"--n_best={self.n_best} is more than the search returns, {self.width}: "
                f"{remedies.get(self.method, 'raise --num_samples')}"
            )
        if self.method == "sample" and self.num_samples > self.n_best:
            raise InputError(
                f"--num_samples={self.num_samples} draws more than --n_best={self.n_best} returns: "
                "make them equal, or use --method=mbr for the best of them"
            )
        if self.renormalize and (self.repetition_penalty != 1 or self.no_repeat_ngrams):
            raise InputError(
                "--renormalize cannot be combined with --no_repeat_ngrams or --repetition_penalty"
            )
        if self.method == "mbr" and self.num_samples == 1:
            raise InputError("--method=mbr compares samples, and --num_samples is 1: raise it")

    def reject_unused(self, option_names: Iterable[str]) -> None:
        """Raise InputError if one of the `option_names` options has no effect in this search.

        Options that differ from their defaults are always checked; `option_names` adds others.
        """
        option_names = set(option_names)
        for method, names in METHOD_OPTIONS.items():
            if self.method == method or (method, self.method) == ("sample", "mbr"):
                continue
            for name in (name for name in names if name in option_names):
                raise InputError(
                    f"--{name}={getattr(self, name)} has no meaning with "
                    f"--method={self.method}: it is for --method={method}"
                )
        if self.num_groups == 1 and "diversity_penalty" in option_names:
            raise InputError(
                f"--diversity_penalty={self.diversity_penalty} needs --num_groups above 1"
            )
        if self.stopping != "full" and "patience" in option_names:
            raise InputError(f"--patience is for --stopping=full, not {self.stopping}")
        if self.penalty == "none" and "alpha" in option_names and self.alpha:
            raise InputError(f"--alpha={self.alpha} has no meaning with --penalty=none")

    def check_vocabulary(self, size: int) -> None:
        """Raise InputError if an option does not fit a vocabulary of that `size`."""
        for name, minimum in ("beam_size", 1), ("top_k", 0):
            if getattr(self, name) > size:
                raise InputError(
                    f"--{name}={getattr(self, name)} must be from {minimum} to the vocabulary's "
                    f"size, {size}"
                )
        if self.forced_bos_id >= size:
            raise InputError(
                f"config.search.forced_bos_id={self.forced_bos_id} must be below the vocabulary's "
                f"size, {size}"
            )
        for ids in self.banned:
            if not all(0 <= token < size for token in ids):
                raise InputError(f"--forbid: ids {list(ids)} must be from 0 to {size - 1}")
            if tuple(ids) == (EOS,):
                raise InputError(f"--forbid: id {EOS} is EOS, which ends every output: remove it")

    @property
    def width(self) -> int:
        """Number of outputs per sentence in the search."""
        return {"beam": self.beam_size, "greedy": 1}.get(self.method, self.num_samples)

    def limit(self, source: int, longest: int | None = None) -> int:
        """The maximum output length for a source of that many tokens, without EOS.

        `longest` is the model's number of positions, if bounded.
        """
        limits = [source + self.max_length_offset]
        if longest:
            limits.append(longest)
        if self.max_length:
            limits.append(self.max_length)
        if self.max_ratio:
            limits.append(int(round(self.max_ratio * (source + 1), 6)))  # 0.29 * 100 is 29
        return max(1, min(limits))


_DEFAULTS = {field.name: field.default for field in fields(SearchOptions)}
