"""Being asked to stop: machines that are taken away send SIGTERM a while before."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

StopRequested = Callable[[], bool]
"""Whether the work is to be saved and ended now."""


class PreemptedError(Exception):
    """Training ended because it was asked to; all that was done is saved."""


@contextlib.contextmanager
def watch_for_sigterm() -> Iterator[StopRequested]:
    """Tell, while this lasts, whether SIGTERM has come, which ends nothing by itself.

    Inside another one it tells what that one does. Outside the main thread, where Python takes no signals, it never
    has.

    Examples:
        >>> from gru_jax.runtime.preemption import watch_for_sigterm
        >>> with watch_for_sigterm() as stop_requested:
        ...     stop_requested()
        False
    """
    received = _SigtermReceived()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    before = signal.getsignal(signal.SIGTERM)
    if isinstance(before, _SigtermReceived):
        yield before.is_set
        return
    signal.signal(signal.SIGTERM, received)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class _SigtermReceived(threading.Event):
    """A handler of signals that notes that one came."""

    def __call__(self, *_: object) -> None:
        self.set()
