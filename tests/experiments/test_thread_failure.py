"""A failed thread ends the process, even if others wait for it."""

import subprocess
import sys

from tests.experiments.commands import ROOT, environment

# Each case in its own process, forked after the imports.
CASES = """if True:
    import errno, os, sys, threading
    from experiments.thread_errors import exit_on_thread_error

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    def thread_fails():
        threading.Thread(target=fail, name="writer").start()
        threading.Event().wait()

    def thread_exits():
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()

    def main_fails():
        threading.Thread(target=threading.Event().wait).start()  # Python would wait for it
        raise ValueError("it failed")

    def main_exits():
        threading.Thread(target=threading.Event().wait).start()
        sys.exit(3)

    def main_fails_first():
        fails = threading.Event()
        threading.Thread(target=lambda: (fails.wait(), fail())).start()
        try:
            raise ValueError("it failed")
        finally:
            threading.Timer(0.05, fails.set).start()

    for case in thread_fails, thread_exits, main_fails, main_exits, main_fails_first:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            print(case.__name__, os.waitstatus_to_exitcode(status), file=sys.stderr, flush=True)
            continue
        try:
            with exit_on_thread_error(exit_seconds=0.3):
                case()
        except ValueError as error:
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
        sys.exit(0)
"""


def test_every_failure_ends_the_process_with_one_line():
    command = [sys.executable, "-W", "ignore", "-c", CASES]
    process = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=120
    )
    assert process.stderr.splitlines() == [
        "heed: error: the thread writer failed: OSError: [Errno 28] No space left on device",
        "thread_fails 1",
        "thread_exits 0",
        "it failed",
        "main_fails 1",
        "main_exits 3",
        "it failed",
        "main_fails_first 1",
    ]
