"""Signals become a request, the second one is obeyed at once, and what was there is put back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from trainer import preemption
from trainer.errors import Preempted

# A step that never returns to Python, as one that waits for a worker that is gone.
STUCK = """
import hashlib, sys
from trainer import preemption
with preemption.heeded():
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.parametrize("number", preemption.HEEDED)
def test_a_signal_becomes_a_request_and_handlers_come_back(number):
    before = [signal.getsignal(each) for each in preemption.HEEDED]
    with preemption.heeded() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert [signal.getsignal(each) for each in preemption.HEEDED] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_interrupt_does_not_wait():
    with preemption.heeded() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal == signal.SIGINT


def test_a_second_sigterm_ends_a_step_that_never_returns():
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    process.stdout.close()


def test_outside_the_main_thread_nothing_is_heard():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with preemption.heeded() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_nobody_need_know_the_error_for_the_right_exit_code():
    script = "from trainer.errors import Preempted; raise Preempted('stopped')"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 143
    assert str(Preempted("stopped")) == "stopped"
