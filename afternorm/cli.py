# SPDX-License-Identifier: Apache-2.0
"""The command line: `afternorm COMMAND`, from `presets` to `report`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from afternorm.board.boards import BOARDS, DEFAULT_BOARD
from afternorm.config import PRESETS, Config, load_config, preset
from afternorm.errors import AfternormError
from afternorm.files import write_directory, write_file
from afternorm.targets import TARGETS

if TYPE_CHECKING:  # the commands import what they need themselves
    from afternorm.compiler.layer_weights import Schedule

SCHEDULES: "tuple[Schedule, ...]" = ("serial", "interleaved", "deferred")
ARCHITECTURES = ("llama", "bert", "gpt2")
SIMULATORS = ("verilator", "icarus")
WRAPPERS = ("axi", "none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        Exit status: 0, 1 if a simulation was not bit-exact, 2 after an error, of which one line
        on standard error tells.
    """
    try:
        options = parser().parse_args(arguments)
        if options.json is not None and not options.json.parent.is_dir():
            raise AfternormError(f"--json: there is no folder {options.json.parent}")
        status: int = options.run(options)
    except AfternormError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return 130
    return status


def _fail(message: str) -> int:
    print(f"afternorm: error: {message}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Tells of a wrong argument in one line."""

    def error(self, message: str) -> NoReturn:
        raise AfternormError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar: options of a command, and `run`, which does it."""
    root = _Parser(
        prog="afternorm",
        description="Transformer accelerators whose normalization comes after the matrix product.",
    )
    root.add_argument("--version", action="version", version=f"afternorm {version('afternorm')}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
        return sub

    command(
        "presets",
        _presets,
        "list the named configurations",
        "afternorm presets --json presets.json",
    )

    sub = command(
        "generate",
        _generate,
        "write an accelerator's Verilog, its description, FuseSoC core and C driver",
        "afternorm generate --preset small -o build/small\n"
        "  fusesoc --cores-root build/small run --target=lint afternorm",
    )
    _add_config(sub)
    sub.add_argument(
        "--wrapper",
        choices=WRAPPERS,
        default="axi",
        help="AXI4 and AXI4-Lite buses, or the machine's own ports (default: axi)",
    )
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for afternorm.v and all that goes with it (default: afternorm-PRESET)",
    )

    sub = command(
        "simulate",
        _simulate,
        "run a transformer layer on the RTL and compare every word with the golden machine",
        "afternorm simulate --preset tiny --arch llama --tokens 8 --schedule all",
    )
    _add_config(sub)
    source = sub.add_mutually_exclusive_group()
    source.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="take the weights from a checkpoint"
    )
    source.add_argument(
        "--arch",
        choices=ARCHITECTURES,
        default="llama",
        help="without a checkpoint: a layer of this style with seeded weights (default: llama)",
    )
    sub.add_argument(
        "--layer",
        type=_integer(0),
        default=0,
        metavar="N",
        help="layer of the checkpoint, from 0 (default: 0)",
    )
    sub.add_argument(
        "--tokens", type=_integer(1), default=64, metavar="T", help="rows (default: 64)"
    )
    sub.add_argument(
        "--schedule",
        choices=(*SCHEDULES, "all"),
        default="all",
        help="when rows are normalized (default: all three, side by side)",
    )
    sub.add_argument(
        "--seed", type=_integer(0), default=0, metavar="S", help="of weights and input (default: 0)"
    )
    _add_simulator(sub)
    sub.add_argument(
        "--waves",
        type=Path,
        nargs="?",
        const=Path("waves"),
        metavar="DIR",
        help="write a trace a schedule into DIR (default: waves)",
    )

    sub = command(
        "run",
        _run,
        "run a whole model: continue texts (decoders) or compare them (encoders)",
        'afternorm run stories260K.bin --prompt "Once upon a time" --tokens 64 --preset medium\n'
        '  afternorm run all-MiniLM-L6-v2/ --text "A cat sleeps." --text "The kitten naps."\n'
        "  afternorm run adder --prompt 27+48= --schedule all",
    )
    _add_config(sub)
    _add_model(sub)
    sub.add_argument(
        "--prompt",
        "--text",
        dest="texts",
        action="append",
        metavar="TEXT",
        help="to continue or to embed; may be given several times (default: an empty one)",
    )
    sub.add_argument(
        "--tokens",
        type=_integer(1),
        metavar="N",
        help="new tokens of each text, at most (default: 32, or what the context leaves)",
    )
    sub.add_argument(
        "--backend",
        choices=("rtl", "uart", "golden", "float"),
        default="rtl",
        help="the RTL or a board, checked against the golden machine; the golden machine; float64 "
        "(default: rtl)",
    )
    sub.add_argument("--port", metavar="DEV", help="serial port of the board, for the backend uart")
    sub.add_argument(
        "--schedule",
        choices=(*SCHEDULES, "all"),
        default="deferred",
        help="when rows are normalized, or all three side by side (default: deferred)",
    )
    sub.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0: the likeliest token (default); else tokens are drawn",
    )
    sub.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw only from the likeliest tokens, which together have this probability",
    )
    sub.add_argument("--seed", type=_integer(0), default=0, help="of the draws (default: 0)")
    sub.add_argument(
        "--clock",
        type=float,
        metavar="MHZ",
        help="that tokens a second are counted with (default: the board's, or 100)",
    )
    _add_simulator(sub)

    sub = command(
        "accuracy",
        _accuracy,
        "measure what number formats cost a model, on the golden machine against float64",
        "afternorm accuracy all-MiniLM-L6-v2/ --text sentences.txt --blocks 32,16,8\n"
        "  python scripts/sample_text.py stories260K.bin -o texts.json\n"
        "  afternorm accuracy stories260K.bin --text texts.json --preset medium --plot loss.svg",
    )
    sub.description = (
        "Measure what number formats cost a model, on the golden machine against float64: NLL of "
        "texts (decoders),\nor the cosine between embeddings (encoders). The accelerator's "
        "memories are taken as large as the model\nneeds, which changes no result."
    )
    _add_config(sub)
    _add_model(sub)
    sub.add_argument(
        "--text",
        type=Path,
        required=True,
        metavar="FILE",
        help="texts, one a line, or tokens from scripts/sample_text.py",
    )
    sub.add_argument(
        "--blocks",
        type=_list(int),
        metavar="N,N",
        help="elements of a block (default: the configuration's)",
    )
    sub.add_argument(
        "--fractions",
        type=_list(int),
        default=(23, 15, 9),
        metavar="F,F",
        help="fraction bits of the float (default: 23,15,9)",
    )
    sub.add_argument(
        "--schedules",
        type=_list(_schedule),
        default=("deferred", "serial"),
        metavar="S,S",
        help=f"of {', '.join(SCHEDULES)} (default: deferred,serial; serial is conventional)",
    )
    sub.add_argument("--limit", type=_integer(1), metavar="N", help="only the first N texts")
    sub.add_argument(
        "--length", type=_integer(1), metavar="N", help="only the first N tokens of a text"
    )
    sub.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the losses into a .png or .svg"
    )

    sub = command(
        "explore",
        _explore,
        "score a space of accelerators on the same workloads, and find the best ones",
        "afternorm explore examples/space.toml --plot space.svg\n"
        "  afternorm explore examples/space.toml --scheduler tcp://cluster:8786",
    )
    sub.description = (
        "Score a space of accelerators on the same workloads, and find the best ones. Every "
        "finished score is kept\nat once: after Ctrl-C, or with more in the space, the same "
        "command does what is not done yet."
    )
    sub.add_argument(
        "space",
        type=Path,
        metavar="SPACE.toml",
        help="presets, sizes, schedules, workloads and scores; see examples/space.toml",
    )
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the finished scores (default: SPACE-results beside SPACE.toml)",
    )
    where = sub.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=_integer(1),
        metavar="N",
        help="processes of this machine (default: one a core)",
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that works instead"
    )
    sub.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the points into a .png or .svg"
    )

    _add_bench(commands)

    sub = command(
        "report",
        _report,
        "synthesize for an FPGA and add up what it takes",
        "afternorm report --preset small --target ecp5\n"
        "  afternorm report --preset small --target ecp5 --unit array --pnr --seeds 1,2,3",
    )
    _add_config(sub)
    sub.add_argument("--target", choices=TARGETS, default="ecp5", help="(default: ecp5)")
    sub.add_argument("--unit", metavar="NAME", help="one unit alone instead of the accelerator")
    sub.add_argument(
        "--pnr",
        action="store_true",
        help="place and route as well (ecp5 only): frequency and critical path",
    )
    sub.add_argument(
        "--seeds",
        type=_list(_integer(0)),
        default=(1, 2, 3),
        metavar="S,S",
        help="of place and route (default: 1,2,3)",
    )
    sub.add_argument(
        "--depth",
        type=_integer(0),
        default=2,
        metavar="N",
        help="levels of the hierarchy to print (default: 2; JSON has all)",
    )

    sub = command(
        "bitstream",
        _bitstream,
        "synthesize, place and route for a board, and write its bitstream",
        "afternorm bitstream --board ulx3s -o build/ulx3s\n"
        "  openFPGALoader --board ulx3s build/ulx3s/afternorm.bit\n"
        "  afternorm run adder --prompt 27+48= --backend uart --port /dev/ttyUSB0",
    )
    sub.add_argument("--board", choices=tuple(BOARDS), default=DEFAULT_BOARD)
    _add_config(sub, "the board's")
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the bitstream and the timing report (default: afternorm-BOARD)",
    )
    sub.add_argument(
        "--frequency", type=float, metavar="MHZ", help="of the machine (default: the board's clock)"
    )
    sub.add_argument("--seed", type=_integer(0), default=1, help="of place and route (default: 1)")
    return root


def _add_bench(commands: Any) -> None:
    """The benchmarks, each a command of its own with the options that it takes."""
    bench = commands.add_parser(
        "bench",
        help="measure utilization, and what normalization costs",
        description="Measure utilization, idle cycles and what normalization costs, on the RTL or "
        "on the model of its time.",
        epilog="example:\n  afternorm bench norm --preset medium --plot norm.svg\n"
        "  afternorm bench gemm --preset tiny --on rtl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = bench.add_subparsers(title="benchmarks", required=True, metavar="NAME")
    for name, text in {
        "gemm": "products of growing size",
        "attention": "softmax(q k^T) v of heads back to back",
        "norm": "what a normalization costs, as tiles and rows grow",
        "layer": "whole transformer layers",
        "decode": "cycles a token, against what the weights allow",
        "scaling": "one layer on 1, 2, 4, ... tiles",
        "simulation": "speed of the simulation, cocotb against a bare loop",
    }.items():
        sub = names.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=_bench, bench=name)
        _add_config(sub)
        sub.add_argument(
            "--on",
            choices=("rtl", "model"),
            default="rtl" if name == "simulation" else "model",
            help="the RTL, every word compared with the golden machine; or the model of its time "
            "(default: %(default)s)",
        )
        sub.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
        sub.add_argument(
            "--plot", type=Path, metavar="FILE", help="draw the numbers into a .png or .svg"
        )
        sub.add_argument(
            "--seed", type=_integer(0), default=0, help="of weights and inputs (default: 0)"
        )
        sub.add_argument(
            "--hop-latency",
            type=_integer(0),
            default=0,
            metavar="N",
            help="cycles more for a level of the tree and the gather network, on the model",
        )
        if name in ("norm", "scaling"):
            sub.add_argument("--tokens", type=_integer(1), metavar="N", help="rows")
        if name in ("layer", "decode", "scaling"):
            sub.add_argument(
                "--tiles",
                type=_integer(1),
                nargs="+",
                metavar="T",
                help="numbers of tiles, 1 to 1024 on the model"
                + ("" if name == "scaling" else ", with --model"),
            )
        if name == "scaling":
            sub.add_argument(
                "--model", metavar="NAME", help="a published model's layer, as for `bench layer`"
            )
        if name == "simulation":
            _add_threads(sub)
        if name in ("layer", "scaling"):
            sub.add_argument(
                "--arch",
                choices=ARCHITECTURES,
                help="kind of the seeded layer (default: bert; of `bench layer`, all)",
            )
        if name == "decode":
            decoder = sub.add_mutually_exclusive_group()
            decoder.add_argument(
                "--checkpoint",
                type=Path,
                default=Path("adder"),
                metavar="CHECKPOINT",
                help="the decoder, as for `afternorm run` (default: adder)",
            )
            decoder.add_argument(
                "--model",
                metavar="NAME",
                help="shapes of a published model's layer, on the model: llama-2-7b, llama-3-8b",
            )
            sub.add_argument(
                "--context",
                type=_integer(1),
                default=2048,
                metavar="N",
                help="tokens before the one that is timed, with --model (default: 2048)",
            )
            sub.add_argument(
                "--batch",
                type=_integer(1),
                nargs="+",
                default=[1],
                metavar="B",
                help="numbers of sequences that are decoded together (default: 1)",
            )
            sub.add_argument(
                "--positions",
                type=_integer(0),
                nargs="+",
                metavar="P",
                help="positions of a checkpoint's tokens (default: 0, powers of two, the last)",
            )
        if name == "layer":
            source = sub.add_mutually_exclusive_group()
            source.add_argument(
                "--checkpoint",
                type=Path,
                metavar="CHECKPOINT",
                help="instead of a seeded layer, as for `afternorm run`",
            )
            source.add_argument(
                "--model",
                nargs="+",
                metavar="NAME",
                help="shapes of published models' layers, on the model: llama-2-7b, llama-3-8b, "
                "bert-large",
            )
            sub.add_argument(
                "--tokens",
                type=_integer(1),
                nargs="+",
                metavar="N",
                help="rows; several numbers with --model",
            )
            sub.add_argument(
                "--layer", type=_integer(0), default=0, help="of the checkpoint (default: 0)"
            )


def _add_config(parser: argparse.ArgumentParser, default: str = "small") -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--preset", metavar="P", help=f"one of {', '.join(PRESETS)} (default: {default})"
    )
    group.add_argument(
        "--config", type=Path, metavar="F.toml", help="a preset's name, and sizes that differ"
    )


def _add_simulator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--simulator", choices=SIMULATORS, default="verilator", help="(default: verilator)"
    )
    _add_threads(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_integer(1),
        default=1,
        metavar="N",
        help="that Verilator simulates on; they pay on free cores, from the preset medium on "
        "(default: 1)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a Hugging Face folder, a llama2.c file, either also by its name in the folder that "
        "AFTERNORM_MODELS names; or adder, the model that comes with afternorm",
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="if it is not beside the checkpoint"
    )


def _integer(low: int) -> Any:
    def integer(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    return integer


def _list(item: Callable[[str], Any]) -> Any:
    """Values with commas between them, each once."""

    def values(text: str) -> tuple[Any, ...]:
        try:
            return tuple(dict.fromkeys(item(part.strip()) for part in text.split(",")))
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of values with commas between them"
            ) from error

    return values


def _schedule(text: str) -> str:
    if text not in SCHEDULES:
        raise argparse.ArgumentTypeError(
            f"unknown schedule {text!r}; there are {', '.join(SCHEDULES)}"
        )
    return text


def _config(options: argparse.Namespace, default: str = "small") -> tuple[str, Config]:
    """The configuration that was asked for, or the preset `default`, and its name."""
    if options.config is not None:
        return options.config.stem, load_config(options.config)
    name = options.preset or default
    return name, preset(name)


def _write_json(options: argparse.Namespace, numbers: Any) -> None:
    if options.json is not None:
        write_file(options.json, json.dumps(numbers, indent=2, default=str) + "\n")


# A command imports what it needs: `afternorm presets` should not wait for Amaranth.


def _presets(options: argparse.Namespace) -> int:
    from afternorm.memory import memory_bits
    from afternorm.tables import print_presets

    print_presets(PRESETS)
    _write_json(
        options,
        {
            name: {
                "parameters": config.to_dict(),
                "macs": config.macs,
                "memory_bits": memory_bits(config),
            }
            for name, config in PRESETS.items()
        },
    )
    return 0


def _generate(options: argparse.Namespace) -> int:
    name, config = _config(options)
    directory: Path = options.output or Path(f"afternorm-{name}")
    if directory.exists() and not directory.is_dir():
        raise AfternormError(f"{directory} is no folder")

    from afternorm.generate import TOP, generate
    from afternorm.progress import yosys_progress

    with yosys_progress(f"generating {name}"):
        files = generate(config, wrapper=options.wrapper)
    write_directory(directory, files)
    for file, text in files.items():
        print(f"{directory / file}: {len(text.encode()):,} bytes")
    _write_json(options, json.loads(files[f"{TOP}.json"]))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    name, config = _config(options)

    from afternorm.layer_simulation import simulate_layer
    from afternorm.tables import print_layer

    result = simulate_layer(
        config,
        checkpoint=options.checkpoint,
        layer=options.layer,
        arch=options.arch,
        tokens=options.tokens,
        schedules=SCHEDULES if options.schedule == "all" else (options.schedule,),
        seed=options.seed,
        simulator=options.simulator,
        threads=options.threads,
        waves=options.waves,
    )
    print_layer(result)
    _write_json(options, {"configuration": name, **asdict(result), "exact": result.exact})
    if not result.exact:
        print("afternorm: error: the RTL differs from the golden machine", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> int:
    on_board = options.backend == "uart"
    if on_board != (options.port is not None):
        raise AfternormError("--backend uart and --port DEV go together")
    board = BOARDS[DEFAULT_BOARD]
    name, config = _config(options, board.preset if on_board else "small")
    clock = options.clock
    if clock is None:
        clock = board.clock if on_board else 100.0
    if not clock > 0:
        raise AfternormError(f"--clock must be above 0 MHz, not {clock:g}")

    from afternorm.checkpoints import load_model, locate
    from afternorm.model_run import run_model
    from afternorm.sampling import Sampler
    from afternorm.tables import print_model

    def sampler() -> Sampler:
        return Sampler(options.temperature, options.top_p, options.seed)

    def write(text: str) -> None:
        print(text, end="", flush=True)

    sampler()  # a wrong parameter is told before anything is loaded
    model = load_model(locate(options.checkpoint), options.tokenizer)
    result = run_model(
        config,
        model,
        options.texts or [""],
        tokens=options.tokens,
        backend=options.backend,
        schedules=SCHEDULES if options.schedule == "all" else (options.schedule,),
        sampler=sampler,
        clock=clock,
        write=write,
        simulator=options.simulator,
        threads=options.threads,
        port=options.port or "",
    )
    print_model(result, config)
    _write_json(options, {"configuration": name, **asdict(result), "exact": result.exact})
    if not result.exact:
        print("afternorm: error: the RTL differs from the golden machine", file=sys.stderr)
        return 1
    return 0


def _accuracy(options: argparse.Namespace) -> int:
    name, config = _config(options)

    from afternorm.accuracy_run import read_texts, run_accuracy
    from afternorm.checkpoints import load_model, locate
    from afternorm.tables import print_accuracy

    if options.plot is not None:
        from afternorm.plots import check_plot, plot_accuracy

        check_plot(options.plot)
    model = load_model(locate(options.checkpoint), options.tokenizer)
    texts = read_texts(options.text, model, limit=options.limit, length=options.length)
    result = run_accuracy(
        name,
        config,
        model,
        texts,
        blocks=options.blocks or (config.block,),
        fractions=options.fractions,
        schedules=options.schedules,
    )
    print_accuracy(result)
    _write_json(options, result.to_dict())
    if options.plot is not None:
        plot_accuracy(result, options.plot)
    return 0


def _explore(options: argparse.Namespace) -> int:
    from afternorm.explore import Results, explore, load_space, run_cluster, run_local
    from afternorm.explore.explore import Interrupted
    from afternorm.explore.output import plot_exploration, print_exploration

    if options.plot is not None:
        from afternorm.plots import check_plot

        check_plot(options.plot)
    path: Path = options.space
    space = load_space(path)
    results = Results(options.output or path.with_name(f"{path.stem}-results"))
    if options.scheduler is not None:
        runner = partial(run_cluster, address=options.scheduler)
    else:
        runner = partial(run_local, workers=options.workers or os.cpu_count() or 1)
    try:
        result = explore(space, results, runner)
    except Interrupted as interrupt:
        print(
            f"afternorm: interrupted; {interrupt.done} of {interrupt.total} scores are in "
            f"{results.folder}, and the same command goes on from there",
            file=sys.stderr,
        )
        raise
    print_exploration(result)
    _write_json(options, result.to_dict())
    if options.plot is not None:
        plot_exploration(result, options.plot)
    return 1 if any(point.status == "failed" for point in result.points) else 0


def _bench(options: argparse.Namespace) -> int:
    name, config = _config(options)

    from afternorm import bench
    from afternorm.bench.tables import print_bench
    from afternorm.checkpoints import ARCHS, load_model, locate

    if options.plot is not None:
        from afternorm.plots import check_plot, plot_bench

        check_plot(options.plot)
    subject = bench.Subject(
        name, config, options.on, seed=options.seed, hop_latency=options.hop_latency
    )
    if options.bench == "gemm":
        result = bench.bench_gemm(subject)
    elif options.bench == "attention":
        result = bench.bench_attention(subject)
    elif options.bench == "norm":
        result = bench.bench_norm(subject, tokens=options.tokens)
    elif options.bench == "layer":
        tokens = options.tokens or [None]
        if options.model is not None:
            result = bench.bench_prefill(
                subject, options.model, tokens=options.tokens or [128], tiles=options.tiles
            )
        elif len(tokens) > 1:
            raise AfternormError(f"{len(tokens)} numbers of tokens: only --model takes several")
        else:
            source = None
            if options.checkpoint is not None:
                source = load_model(locate(options.checkpoint))
            archs = ARCHS if options.arch is None else (options.arch,)
            result = bench.bench_layer(
                subject, archs=archs, tokens=tokens[0], source=source, layer=options.layer
            )
    elif options.bench == "decode":
        if options.model is not None:
            result = bench.bench_step(
                subject,
                options.model,
                context=options.context,
                tiles=options.tiles,
                batches=options.batch,
            )
        else:
            model = load_model(locate(options.checkpoint))
            result = bench.bench_decode(
                subject, model, positions=options.positions, batches=options.batch
            )
    elif options.bench == "scaling":
        result = bench.bench_scaling(
            subject,
            arch=options.arch or "bert",
            tokens=options.tokens,
            source=options.model,
            tiles=options.tiles,
        )
    else:
        result = bench.bench_simulation(subject, threads=options.threads)
    print_bench(result)
    _write_json(options, result.to_dict())
    if options.plot is not None:
        plot_bench(result, options.plot)
    if not result.exact:
        print("afternorm: error: the RTL differs from the golden machine", file=sys.stderr)
        return 1
    return 0


def _report(options: argparse.Namespace) -> int:
    name, config = _config(options)

    from afternorm.progress import progress, yosys_progress
    from afternorm.report import report
    from afternorm.tables import print_report, print_timings
    from afternorm.units import make_unit, multipliers
    from hdl.verilog import emit_rtlil

    unit = options.unit or "accelerator"
    timings = None
    if options.pnr:
        from afternorm.pnr import DEVICE, check_target, place_and_route

        check_target(options.target)
    design = emit_rtlil(make_unit(unit, config), name=unit)
    with yosys_progress(f"synthesizing {unit} of {name} for {options.target}"):
        result = report(design, top=unit, target=options.target)
    if options.pnr:
        with progress(f"placing and routing {unit} of {name}, {len(options.seeds)} times"):
            timings = place_and_route(design, top=unit, seeds=options.seeds, target=options.target)
    macs = multipliers(unit, config)
    print_report(result, macs=macs, depth=options.depth)
    numbers = {"configuration": name, "unit": unit, "macs": macs, **result.to_dict()}
    if timings is not None:
        print_timings(timings, device=DEVICE)
        numbers["place_and_route"] = {
            "device": DEVICE,
            "timings": [timing.to_dict() for timing in timings],
        }
    _write_json(options, numbers)
    return 0


def _bitstream(options: argparse.Namespace) -> int:
    board = BOARDS[options.board]
    _, config = _config(options, board.preset)
    directory: Path = options.output or Path(f"afternorm-{options.board}")
    if directory.exists() and not directory.is_dir():
        raise AfternormError(f"{directory} is no folder")

    from afternorm.board.bitstream import BITSTREAM, REPORT, bitstream

    def step(text: str) -> None:
        print(f"{text} ...", flush=True)

    result = bitstream(
        options.board,
        config,
        directory,
        frequency=options.frequency,
        seed=options.seed,
        step=step,
    )
    taken = (f"{used:,} of {result.available[kind]:,}" for kind, used in result.used.items())
    kinds = ("LUTs", "registers", "multipliers", "block RAMs")
    print(", ".join(f"{kind} {of}" for kind, of in zip(kinds, taken, strict=True)))
    print(f"{result.timing.fmax:g} MHz, for a clock of {result.clock:g} MHz")
    for file in (BITSTREAM, REPORT):
        print(f"{directory / file}: {(directory / file).stat().st_size:,} bytes")
    _write_json(options, result.to_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
