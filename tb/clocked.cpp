// SPDX-License-Identifier: Apache-2.0
// Runs cocotb on a simulated system (tb.system), and makes its clock: port `clk`, HALF_PERIOD steps of
// time between two edges.
//
// A clock that cocotb makes goes through the VPI at each edge, which on a small array takes a fifth of
// the time.  Benches see the same: they wake at an edge before the model does, as with a clock set by
// `Immediate`, so they sample what the cycle that ends has left.
//
// Arguments: plusargs; `--trace --trace-file F` writes a VCD, where the model was built for it.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

extern "C" void vlog_startup_routines_bootstrap();

namespace {
uint64_t now = 0;

// A bench that wakes may change what another waits for.
void wake() {
  while (VerilatedVpi::callValueCbs()) {
  }
}

void apply_writes() {
  VerilatedVpi::doInertialPuts();
  wake();
}

// All that happens in this step of time, until nothing is written any more.
void settle(Vtop& top) {
  do {
    do {
      top.eval();
      VerilatedVpi::clearEvalNeeded();
      apply_writes();
    } while (VerilatedVpi::evalNeeded());
    VerilatedVpi::callCbs(cbReadWriteSynch);
    apply_writes();
  } while (VerilatedVpi::evalNeeded());
  VerilatedVpi::callCbs(cbReadOnlySynch);
}
}  // namespace

double sc_time_stamp() { return now; }

int main(int argc, char** argv) {
  Verilated::commandArgs(argc, argv);
  Verilated::fatalOnVpiError(false);  // cocotb asks for what may not be there
  const auto top = std::make_unique<Vtop>("");  // so that the top module's name is that of its scope
#if VM_TRACE
  Verilated::traceEverOn(true);
  VerilatedVcdC trace;
  top->trace(&trace, 99);
  for (int n = 1; n + 1 < argc; ++n)
    if (!std::strcmp(argv[n], "--trace-file")) trace.open(argv[n + 1]);
#endif

  vlog_startup_routines_bootstrap();
  VerilatedVpi::callCbs(cbStartOfSimulation);
  wake();
  uint64_t edge = HALF_PERIOD;
  while (true) {
    settle(*top);
#if VM_TRACE
    trace.dump(now);
#endif
    if (Verilated::gotFinish()) break;
    now = std::min<uint64_t>(edge, VerilatedVpi::cbNextDeadline());
    VerilatedVpi::callCbs(cbNextSimTime);
    wake();
    if (now == edge) {
      top->clk = !top->clk;
      edge += HALF_PERIOD;
      wake();
    }
    VerilatedVpi::callTimedCbs();
    wake();
  }
  VerilatedVpi::callCbs(cbEndOfSimulation);
  top->final();
#if VM_TRACE
  trace.close();
#endif
  return Verilated::threadContextp()->errorCount() > 0;
}
