# SPDX-License-Identifier: Apache-2.0
"""Accelerators with their DRAM, as a host program sees them: bytes in and out, programs run."""

import shutil
import subprocess
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from afternorm.config import Config
from afternorm.errors import AfternormError
from afternorm.isa import INSTRUCTION_BYTES
from afternorm.results import Run, run_fields
from afternorm.simulation import DRAM_BYTES, SimulationError, Simulator, build

__all__ = ["Device", "RtlDevice", "Run"]

MAX_CYCLES = 1_000_000_000
"""Of one program on the RTL, unless stated otherwise: there to end what would never end."""


class Closing(ABC):
    """A context manager that closes itself."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; it cannot be used any more."""

    def __enter__(self) -> Self:
        """The object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class Device(Closing):
    """An accelerator and its DRAM; a context manager that closes it."""

    @abstractmethod
    def write(self, address: int, data: bytes) -> None:
        """Put `data` into DRAM from byte `address` on."""

    @abstractmethod
    def read(self, address: int, count: int) -> bytes:
        """`count` bytes of DRAM from byte `address` on."""

    @abstractmethod
    def run(self, program: int) -> Run:
        """Run the program at byte `program` of DRAM, and wait for its end.

        A program that stops with an error says so in what is returned; the next one runs
        on a machine that was reset, with its memories kept.
        """


class RtlDevice(Device):
    """The generated RTL in a simulator, one process from here to `close`.

    Parameters
    ----------
    config
        The accelerator; its simulation is built, or taken from the cache.
    image
        What lies in DRAM from byte 0 on; the rest is zero.
    latency
        Cycles from a read of DRAM to its first beat.
    stall
        Probability that a stream of DRAM stalls in a cycle.
    seed
        Of the stalls.
    waves
        A folder for a trace, if wanted.
    threads
        That it is simulated on.
    max_cycles
        Most cycles of a program; beyond, the simulation ends with an error.

    Raises
    ------
    AfternormError
        If the image is larger than the simulated DRAM, or `latency` or `stall` is impossible.
    ToolError
        If a tool is missing.
    """

    def __init__(
        self,
        config: Config,
        image: bytes = b"",
        *,
        simulator: Simulator = "verilator",
        latency: int = 32,
        stall: float = 0.0,
        seed: int = 0,
        waves: Path | None = None,
        threads: int = 1,
        max_cycles: int = MAX_CYCLES,
    ) -> None:
        self.config = config
        _check_range(0, len(image))
        if latency < 2:
            raise AfternormError(f"the DRAM's latency is at least 2 cycles, not {latency}")
        if not 0 <= stall < 1:
            raise AfternormError(f"the DRAM's stall is a probability below 1, not {stall}")
        built = build(config, simulator=simulator, waves=waves is not None, threads=threads)
        from tb.system import dram_text

        self._folder = Path(tempfile.mkdtemp(prefix="afternorm-device-"))
        contents = self._folder / "dram.hex"
        contents.write_text(dram_text([(0, image)] if image else [], config.dram_width))
        self._connection, theirs = Pipe()
        try:
            running = built.start(
                "tb.bench_device",
                parameters={"connection": theirs.fileno(), "max_cycles": max_cycles},
                seed=seed,
                workdir=self._folder if waves is None else waves,
                plusargs={
                    "dram": contents,
                    "dram_latency": latency,
                    "dram_stall": round(1000 * stall),
                    "dram_seed": seed % (1 << 32),
                },
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            theirs.close()
        self.process: subprocess.Popen[bytes] = running.process
        """The simulation."""
        self._log_tail: Callable[[], str] = running.log_tail
        self._finalizer = weakref.finalize(self, _end, self._connection, self.process, self._folder)

    def write(self, address: int, data: bytes) -> None:
        """As in `Device`."""
        _check_range(address, len(data))
        self._command("write", address, bytes(data))

    def read(self, address: int, count: int) -> bytes:
        """As in `Device`."""
        _check_range(address, count)
        return bytes(self._command("read", address, count))

    def run(self, program: int) -> Run:
        """As in `Device`."""
        _check_range(program, INSTRUCTION_BYTES)
        if program % INSTRUCTION_BYTES:
            raise AfternormError(
                f"a program lies at a multiple of {INSTRUCTION_BYTES} bytes, not at {program:#x}"
            )
        return Run(**run_fields(self._command("run", program // INSTRUCTION_BYTES)))

    def close(self) -> None:
        """As in `Device`."""
        self._finalizer()

    def _command(self, *command: object) -> Any:
        """Have the simulation execute a command; its answer.

        Raises
        ------
        SimulationError
            If the simulation has ended, with the end of its log.
        """
        if not self._finalizer.alive:
            raise SimulationError("the simulated device is closed")
        try:
            self._connection.send(command)
            return self._connection.recv()
        except (EOFError, OSError):
            self.process.wait()
            tail = self._log_tail()
            self.close()
            raise SimulationError(
                f"the simulation ended (exit code {self.process.returncode}) while it was to "
                f"{command[0]}; the end of its log:\n{tail}"
            ) from None
        except BaseException:
            # The answer that is still to come would be taken for the next command's.
            self.process.kill()
            self.close()
            raise


def _check_range(address: int, count: int) -> None:
    if address < 0 or count < 0 or address + count > DRAM_BYTES:
        raise AfternormError(
            f"{count} bytes at {address:#x} are not within the simulated DRAM's {DRAM_BYTES} bytes"
        )


_PATIENCE = 10
"""Seconds that a simulation has to end by itself."""


def _end(
    connection: "Connection[Any, Any]", process: subprocess.Popen[bytes], folder: Path
) -> None:
    """End a simulation: it ends by itself when it is idle, and is killed when it is not."""
    connection.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
