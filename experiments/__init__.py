"""Everything that is launched: thin mains over functions that can be imported."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the command of `python -m experiments.NAME`
    from experiments import startup

    startup.begin()
