"""Commands: thin main modules over importable functions."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the command of `python -m experiments.NAME`
    import _signal  # type: ignore[import-not-found]  # built in: imports faster than signal

    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})  # until startup installs a handler

    from experiments import startup

    startup.set_up_command()
