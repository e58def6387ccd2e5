"""Commands as a user types them, without each importing JAX anew.

A process imports what is slow and forks for each command, before any device is started: what runs
is the command, in a process of its own, with its own working folder, environment and files.

    python forks.py serve SOCKET
    python forks.py run SOCKET -m experiments.train ..       (what a test has `python` mean)
"""

import json
import os
import runpy
import signal
import socket
import sys


def serve(path):
    """Answer connections until killed."""
    for name in IMPORTS:
        __import__(name)
    from orbax.checkpoint import v1  # noqa: F401, an attribute, which cannot be imported by name

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
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


def run(path, arguments):
    """Have the command run with this process's files, folder and environment."""
    told = dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(told).encode()], [0, 1, 2])
        return int(connection.recv(64) or 1)


if __name__ == "__main__":
    action, at, *others = sys.argv[1:]
    sys.exit(serve(at) if action == "serve" else run(at, others))
