"""Commands: thin mains over functions that can be imported."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the command of `python -m experiments.NAME`
    import _signal  # type: ignore[import-not-found]  # built in, unlike signal: takes no time

    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})  # until startup handles it

    from experiments import startup

    startup.begin()
