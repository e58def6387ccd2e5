"""Commands as a user types them, without each importing JAX anew.

A process imports what is slow and forks for each command, before any device is started: what runs
is the command, in a process of its own, with its own working folder, environment and files.

    python forks.py serve SOCKET                             (until its stdin ends)
    python forks.py run SOCKET -m experiments.train ..       (what a test has `python` mean)
"""

import json
import os
import runpy
import select
import signal
import socket
import sys


def serve(path):
    """Answer connections until stdin ends, as it does when the process that started this ends."""
    for name in IMPORTS:
        __import__(name)
    from orbax.checkpoint import v1  # noqa: F401, an attribute, which cannot be imported by name

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}.new")
        listening.listen()
        os.rename(f"{path}.new", path)  # who sees it can connect
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
                os._exit(0)
            connection.close()


IMPORTS = """
    jax flax.linen optax orbax.checkpoint grain sentencepiece sacrebleu sacremoses ml_collections
    tensorboardX rich.progress absl.app ml_collections.config_flags filelock
""".split()


def answer(connection):
    """Run one command, and send its exit status."""
    told, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(command(json.loads(told), files))
    for file in files:
        os.close(file)
    # Who asked closes the connection when it waits no longer.
    with open(os.pidfd_open(child), "rb", buffering=0) as ended:
        if connection in select.select([ended, connection], [], [])[0]:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def command(told, files):
    """The exit status of `python -m MODULE ARGUMENTS`."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.path[0] = os.environ["PYTHONPATH"]
    _, module, *rest = told["arguments"]
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status)


def run(path, arguments, folder, environment, files=(0, 1, 2), timeout=None):
    """Exit status of the command, run with these open files. Raises TimeoutError."""
    told = dict(arguments=arguments, folder=folder, environment=environment)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(told).encode()], files)
        return int(connection.recv(64) or 1)


if __name__ == "__main__":
    action, at, *others = sys.argv[1:]
    if action == "serve":
        serve(at)
    else:
        sys.exit(run(at, others, os.getcwd(), dict(os.environ)))
