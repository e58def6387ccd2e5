"""Entry point of all commands: flag parsing, suggestions for typos, one-line errors."""

import difflib
import logging as std_logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from jax.errors import JaxRuntimeError

from data.atomic_write import remove_unfinished
from data.errors import DataError
from data.printable import printable
from decode.options import InputError
from experiments import signals
from experiments.compilation_cache import enable_compilation_cache
from experiments.did_you_mean import did_you_mean
from experiments.malloc import tune_malloc
from experiments.startup import STDOUT
from model import ConfigError
from train.checkpoint import CheckpointError, SaveError
from train.loss_monitor import DivergedError
from train.multihost import PreemptedError, RemoteProcessError
from train.watchdog import WorkdirNotSharedError

USER_ERRORS = (
    *(ConfigError, DataError, CheckpointError, InputError, DivergedError),
    *(RemoteProcessError, WorkdirNotSharedError),
)


def run(
    main: Callable[..., None], argv: list[str] | None = None, takes_arguments: bool = False
) -> None:
    """Parse the flags and call `main`; a user error exits with 1 and one line on stderr.

    The flags come from the command line, or from `argv` with the command's name first. With
    `takes_arguments`, positional arguments are passed to `main` as a list; without, they are an
    error.
    """

    def parse(argv: list[str]) -> list[str]:
        flags.FLAGS.set_gnu_getopt(takes_arguments)  # allows flags after other arguments
        arguments = _parse(argv)
        if len(arguments) > 1 and not takes_arguments:
            fail(f"{arguments[1]!r} is not a flag: values follow '=', as in --workdir=DIR")
        return arguments

    def run_main(arguments: list[str]) -> None:
        _run_main(partial(main, arguments[1:]) if takes_arguments else main)

    signals.install_sigint_handler()
    with signals.cleanup(remove_unfinished):
        app.run(run_main, argv=argv, flags_parser=parse)


def fail(message: object) -> NoReturn:
    """Exit with status 1 and `message` in one line on stderr."""
    print(_error_line(message), file=sys.stderr)
    sys.exit(1)


def _error_line(message: object) -> str:
    return f"heed: error: {printable(' '.join(str(message).split()))}"


def _run_main(main: Callable[[], None]) -> None:
    logging.set_verbosity(logging.ERROR)
    std_logging.getLogger("jax").setLevel(std_logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    enable_compilation_cache()
    tune_malloc()
    try:
        main()
        sys.stdout.flush()  # while an error can still be reported
    except SaveError as error:
        if jax.distributed.is_initialized():  # Orbax's threads would wait for other processes
            signals.exit_now(1, _error_line(error))
        fail(error)
    except USER_ERRORS as error:
        fail(error)
    except PreemptedError:
        print("heed: interrupted", file=sys.stderr)
        sys.exit(signals.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has exited
        _close_stdout()
    except JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in reason:
            if jax.distributed.is_initialized():  # usually because another process ended
                fail(reason)
            raise
        names = {"config": "config.data.tokens_per_batch"}
        names |= {name: name for name in ("tokens_per_batch", "max_tokens")}
        hints = [f"lower --{name} " for flag, name in names.items() if flag in flags.FLAGS]
        fail(f"out of memory: {''.join(hints)}({reason})")
    except OSError as error:
        _fail_with_os_error(error)


def _fail_with_os_error(error: OSError) -> NoReturn:
    if error.filename == STDOUT:
        _close_stdout()
    prefix = f"{error.filename}: " if error.filename else ""
    fail(f"{prefix}{error.strerror or error}")


def _close_stdout() -> None:
    """Discard unwritten output: Python would try again at exit and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: list[str]) -> list[str]:
    argv = ["--help" if argument == "-h" else argument for argument in argv]
    for argument in argv[1:]:
        if argument != argument.encode(errors="replace").decode():
            fail(f"{ascii(argument)} is not valid UTF-8: rename the file, or convert the text")
        if match := re.match(r"--?config=([^:]*)", argument):
            _check_config_exists(match[1])
    try:
        try:
            arguments = flags.FLAGS(argv)
        except SystemExit:  # --help and similar flags, which absl ends with 1
            sys.stdout.flush()
            sys.exit(0)
    except flags.UnrecognizedFlagError as error:
        fail(f"unknown flag --{error.flagname}{_nearest_flag(error.flagname)}")
    except flags.Error as error:
        if match := re.match(r"flag --(\w+)=None: .* must have a value", str(error)):
            fail(f"--{match[1]} is missing; see --help")
        # An error in a config file arrives as the text of a traceback: its last line has the cause.
        fail(str(error).strip().splitlines()[-1].split("Error: ")[-1])
    except (AttributeError, KeyError) as error:
        fail(_unknown_key(error))
    except BrokenPipeError:
        _close_stdout()
        sys.exit(0)
    except OSError as error:
        _fail_with_os_error(error)
    except (ValueError, TypeError, ImportError) as error:
        fail(error)
    except (SyntaxError, NameError) as error:
        fail(f"{getattr(error, 'filename', None) or 'the config file'}: {error}")
    _check_empty()
    return arguments


def _check_empty() -> None:
    """Reject empty flags: an unset shell variable gives "", which means the working folder."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if flag.present and "" in values and flag.default not in ("", []):
            fail(f"--{name} is empty: give it a value, or leave it out")


def _check_config_exists(name: str) -> None:
    if not name:
        fail("--config is empty: name a config file, as in --config=experiments/configs/tiny.py")
    config = Path(name)
    if not config.is_file():
        configs = sorted(file.name for file in Path(config.parent).glob("[!_]*.py"))
        hint = did_you_mean(config.name, configs) if configs else ""
        fail(f"--config={config}: no such file{hint}")


def _nearest_flag(name: str) -> str:
    matches = difflib.get_close_matches(name, list(flags.FLAGS), n=1)
    return f": did you mean --{matches[0]}?" if matches else "; see --help"


def _unknown_key(error: Exception) -> str:
    """Name the unknown override in argv, which config_flags does not report."""
    from experiments.config_io import default_config

    for argument in sys.argv[1:]:
        match = re.match(r"--?config\.([\w.]+)", argument)
        if match is None:
            continue
        node = default_config()
        for name in match[1].split("."):
            if not hasattr(node, "keys") or name not in node:
                names = list(node.keys()) if hasattr(node, "keys") else ()
                return f"config.{match[1]} is unknown{did_you_mean(name, names)}"
            node = node.get_ref(name) if node[name] is None else node[name]
    return str(error)
