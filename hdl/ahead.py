# SPDX-License-Identifier: Apache-2.0
"""A module that another process makes while this one makes what contains it.

Amaranth is Python, and takes one core: what `hdl.once` shares among instances is
of one piece, and nothing outside of it changes it.  The process is not one of
`afternorm.workers`, which import the caller's script once more.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hdl.once import Shared, convert_all, share
from hdl.rtlil import Modules

_NUMBERS = 1_000_000  # More than a process ever gives to what it shares.


@contextmanager
def ahead(component: Callable[..., Any], **arguments: Any) -> Iterator[None]:
    """While the body runs, a process makes the module of ``once(component, **arguments)``.

    The text is the same as without.  Where the process fails, as for a class of a script that it
    cannot import, this one makes the module itself when it wants it.
    """
    shared = share(component, arguments)
    if shared.is_made:
        yield
        return
    make = shared.make
    work = pickle.dumps((component, arguments, shared.name, Shared.made * _NUMBERS))
    with subprocess.Popen(
        [sys.executable, "-c", "from hdl.ahead import _work; _work()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(work)
        answer = process.stdout

        def receive() -> Modules:
            text = answer.read()
            return make() if process.wait() else pickle.loads(text)

        shared.make = receive
        try:
            yield
        finally:
            shared.make = make
            process.kill()


def _work() -> None:
    """Makes what the standard input names, and writes its modules."""
    component, arguments, name, Shared.made = pickle.load(sys.stdin.buffer)
    pickle.dump(convert_all(component(**arguments), name=name, clocked=True), sys.stdout.buffer)
