"""Float flags that reject nan and inf."""

import math

from absl import flags

flags.disclaim_key_flags()  # they belong to the modules that define them


class _FiniteParser(flags.FloatParser):
    number_name = "finite number"
    syntactic_help = "a finite number"

    def is_outside_bounds(self, val: float) -> bool:
        return not math.isfinite(val) or super().is_outside_bounds(val)


def define_float(
    name: str,
    default: float | None,
    help: str,
    lower_bound: float | None = None,
    upper_bound: float | None = None,
) -> flags.FlagHolder:
    """Like absl's DEFINE_float, but rejects nan and inf."""
    parser = _FiniteParser(lower_bound, upper_bound)
    return flags.DEFINE(parser, name, default, help, serializer=flags.ArgumentSerializer())
