# SPDX-License-Identifier: Apache-2.0
"""Load and store engine: random instructions between DRAM and the memories, and throughput."""

from pathlib import Path

import pytest

from afternorm.config import Config, preset
from hdl.dma.load import LoadEngine
from hdl.dma.store import StoreEngine
from tb.runner import BenchError, build

SMALL = {"scratchpad_depth": 256, "vector_depth": 256}
CONFIGS: dict[str, Config] = {
    "tiny": preset("tiny").with_(**SMALL),
    # a word of several beats
    "narrow": preset("small").with_(**SMALL, dram_width=64, fraction_bits=24),
    # several words in a beat
    "wide": preset("tiny").with_(**SMALL, dram_width=512, tiles=3),
}
ENGINES = {"load": LoadEngine, "store": StoreEngine}


def run(
    engine: str, config: str, seed: int, corrupt: bool = False, workdir: Path | None = None
) -> None:
    built = build(ENGINES[engine](config=CONFIGS[config]), name=f"{engine}_{config}")
    parameters = {"config": CONFIGS[config].to_dict(), "engine": engine, "corrupt": corrupt}
    built.run("tb.bench_dma", parameters=parameters, seed=seed, workdir=workdir)


@pytest.mark.parametrize(
    "config", [pytest.param(n, marks=pytest.mark.slow if n == "tiny" else []) for n in CONFIGS]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_moves_words(engine: str, config: str, seed: int) -> None:
    run(engine, config, seed)


@pytest.mark.parametrize("engine", ENGINES)
def test_bench_sees_one_wrong_bit(engine: str, seed: int, tmp_path: Path) -> None:
    message = {"load": "wrote", "store": "1 wrong bytes"}[engine]
    with pytest.raises(BenchError, match=message):
        run(engine, "tiny", seed, corrupt=True, workdir=tmp_path)
