"""A fork server for commands, so that each command need not import JAX again.

A process imports the slow modules and forks for each command, before any device is initialized.
The command runs in its own process, with its own working directory, environment and files.

    python forks.py serve SOCKET                             (until its stdin ends)
    python forks.py run SOCKET -m experiments.train ..       (a stand-in for `python` in tests)
"""

import json
import os
import runpy
import select
import signal
import socket
import sys


def serve(path):
    """Serves connections until stdin ends, as it does when the parent process ends."""
    for name in IMPORTS:
        __import__(name)
    from orbax.checkpoint import v1  # noqa: F401, an attribute, not a module

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # clients that see it can connect
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reap handler processes automatically
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                handle(connection)
                os._exit(0)
            connection.close()


IMPORTS = """
    jax flax.linen optax orbax.checkpoint grain sentencepiece sacrebleu sacremoses ml_collections
    tensorboardX rich.progress absl.app ml_collections.config_flags filelock
""".split()


def handle(connection):
    """Runs one command and sends its exit status."""
    request, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(command(json.loads(request), files))
    for file in files:
        os.close(file)
    # The client closes the connection on a timeout.
    with open(os.pidfd_open(child), "rb", buffering=0) as exited:
        if connection in select.select([exited, connection], [], [])[0]:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def command(request, files):
    """Runs `python -m MODULE ARGUMENTS`; returns its exit status."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = os.environ["PYTHONPATH"]
    _, module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else bool(error.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status)


def run(path, arguments, folder, environment, files=(0, 1, 2), timeout=None):
    """Runs the command with these open files; returns its exit status. Raises TimeoutError."""
    request = dict(arguments=arguments, folder=folder, environment=environment)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode()], files)
        return int(connection.recv(64) or 1)


if __name__ == "__main__":
    action, socket_path, *arguments = sys.argv[1:]
    if action == "serve":
        serve(socket_path)
    else:
        sys.exit(run(socket_path, arguments, os.getcwd(), dict(os.environ)))
