"""Being asked to end: machines that are taken away send SIGTERM a while before."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

Asked = Callable[[], bool]


class PreemptedError(Exception):
    """Training ended because it was asked to; all that was done is saved."""


@contextlib.contextmanager
def watched() -> Iterator[Asked]:
    """Tells, while this lasts, whether SIGTERM has come, which ends nothing by itself.

    Inside another one it tells what that one does. Outside the main thread, where Python takes no signals, it never
    has.
    """
    came = _Came()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.getsignal(signal.SIGTERM)
    if isinstance(before, _Came):
        yield before.is_set
        return
    signal.signal(signal.SIGTERM, came)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class _Came(threading.Event):
    """A handler of signals that notes that one came."""

    def __call__(self, *_: object) -> None:
        self.set()
