// SPDX-License-Identifier: Apache-2.0
// Drives a simulated system (tb.system) by nothing but a loop: the fastest that its model can run.
//
// Arguments: plusargs of the DRAM (see dram.v).  Reads byte addresses of programs, runs each, and prints
// a line for it: status, cycles as the machine counts them, seconds.
// Register numbers come from the project's memory map, as macros.

#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "Vtop.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

namespace {

class Loop {
  VerilatedContext& context;
  Vtop& top;

  // The host port takes the address, a bit that tells writes, and the word, packed.
  void request(uint64_t address, bool write, uint64_t value) {
    auto& word = top.request___05Fpayload;
    for (size_t n = 0; n < sizeof(word) / sizeof(word[0]); ++n) word[n] = 0;
    put(0, address, ADDRESS_BITS);
    put(ADDRESS_BITS, write, 1);
    put(ADDRESS_BITS + 1, value, 64);
    top.request___05Fvalid = 1;
    top.eval();
    while (!top.request___05Fready) tick();
    tick();
    top.request___05Fvalid = 0;
  }

  void put(unsigned low, uint64_t value, unsigned width) {
    for (unsigned n = 0; n < width; ++n)
      top.request___05Fpayload[(low + n) / 32] |= uint32_t(value >> n & 1) << (low + n) % 32;
  }

 public:
  Loop(VerilatedContext& context, Vtop& top) : context(context), top(top) {
    top.rst = 1;
    for (int n = 0; n < 4; ++n) tick();
    top.rst = 0;
    tick();
  }

  void tick() {
    top.clk = 0;
    top.eval();
    top.clk = 1;
    top.eval();
  }

  // Verilator renames what C++ compilers may know otherwise.
  bool stopped() const { return top.__SYM__interrupt || context.gotFinish(); }

  void write(unsigned number, uint32_t value) { request(REGISTERS + number, true, value); }

  uint32_t read(unsigned number) {
    request(REGISTERS + number, false, 0);
    top.response___05Fready = 1;
    top.eval();
    while (!top.response___05Fvalid) tick();
    const uint32_t value = top.response___05Fpayload[0];
    tick();
    top.response___05Fready = 0;
    return value;
  }
};

}  // namespace

int main(int argc, char** argv) {
  auto context = std::make_unique<VerilatedContext>();
  context->commandArgs(argc, argv);
  auto top = std::make_unique<Vtop>(context.get());
  Loop loop(*context, *top);
  for (uint64_t program; std::scanf("%" SCNu64, &program) == 1;) {
    // What was fetched beyond the END of the program before is still coming, and would delay this one.
    for (int wait = 0; wait < 1024; ++wait) loop.tick();
    const auto began = std::chrono::steady_clock::now();
    loop.write(PROGRAM_LOW, uint32_t(program));
    loop.write(PROGRAM_HIGH, uint32_t(program >> 32));
    loop.write(IRQ_ENABLE, ~0u);
    loop.write(IRQ_CAUSE, ~0u);
    loop.write(CONTROL, 1);
    while (!loop.stopped()) loop.tick();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - began;
    if (context->gotFinish()) return 1;
    std::printf("%u %u %.9f\n", loop.read(STATUS), loop.read(CYCLES), taken.count());
    std::fflush(stdout);
  }
  top->final();
  return 0;
}
