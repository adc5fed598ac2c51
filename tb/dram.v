// SPDX-License-Identifier: Apache-2.0
// Simulated DRAM behind the accelerator's native port (hdl.interfaces.DramRead, DramWrite).
//
// Bursts are served in order, several at once, one beat a cycle.  Plusargs:
//   +dram=FILE          contents at the start, for $readmemh; addresses count beats
//   +dram_latency=N     cycles from a read request to its first beat, and from a burst's last
//                       beat to `written`; 32 by default, at least 2
//   +dram_stall=P       per mille of cycles in which a stream stalls, each for itself; 0 by default
//   +dram_seed=N        of the stalls
// The back door reads or writes one beat a cycle; what it reads is there in the next cycle.
// Reads beyond the memory give zeros; a write beyond it ends the simulation.

module afternorm_dram (
  clk, rst,
  read_request_valid, read_request_ready, read_request_address, read_request_beats,
  read_beats_valid, read_beats_ready, read_beats_data,
  write_request_valid, write_request_ready, write_request_address, write_request_beats,
  write_beats_valid, write_beats_ready, write_beats_data, write_beats_strobe, write_beats_last,
  written,
  back_enable, back_write, back_address, back_data, back_answer
);
  parameter WIDTH = 64;
  parameter ADDRESS = 40;
  parameter BEATS = 8;
  // The memory has 2**DEPTH beats of 2**SHIFT bytes.
  parameter DEPTH = 23;
  parameter SHIFT = 3;

  localparam QUEUE = 64;
  localparam POINTER = 6;

  input clk, rst;
  input read_request_valid;
  output read_request_ready;
  input [ADDRESS-1:0] read_request_address;
  input [BEATS-1:0] read_request_beats;
  output reg read_beats_valid;
  input read_beats_ready;
  output reg [WIDTH-1:0] read_beats_data;
  input write_request_valid;
  output write_request_ready;
  input [ADDRESS-1:0] write_request_address;
  input [BEATS-1:0] write_request_beats;
  input write_beats_valid;
  output write_beats_ready;
  input [WIDTH-1:0] write_beats_data;
  input [WIDTH/8-1:0] write_beats_strobe;
  input write_beats_last;
  output reg written;
  input back_enable, back_write;
  input [DEPTH-1:0] back_address;
  input [WIDTH-1:0] back_data;
  output reg [WIDTH-1:0] back_answer;

  reg [WIDTH-1:0] memory [0:(1<<DEPTH)-1];

  // Queues: pointers have one bit more than the index, so that full and empty differ.
  reg [ADDRESS-SHIFT-1:0] r_address [0:QUEUE-1];
  reg [BEATS-1:0] r_beats [0:QUEUE-1];
  reg [31:0] r_due [0:QUEUE-1];
  reg [POINTER:0] r_in, r_out;
  reg [BEATS-1:0] r_sent;
  reg [ADDRESS-SHIFT-1:0] w_address [0:QUEUE-1];
  reg [BEATS-1:0] w_beats [0:QUEUE-1];
  reg [POINTER:0] w_in, w_out;
  reg [BEATS-1:0] w_taken;
  reg [31:0] d_due [0:QUEUE-1];
  reg [POINTER:0] d_in, d_out;

  reg [31:0] now, latency, stall, seed;
  reg [63:0] random;
  reg [3:0] stalls;  // of the next cycle: read requests, read beats, write requests, beats
  reg [3:0] held;
  reg [8*4096-1:0] file;
  reg [WIDTH-1:0] merged;
  reg [ADDRESS-SHIFT-1:0] at;
  integer i;

  initial begin
`ifndef VERILATOR
    // Verilator starts memories from zeros by itself.
    for (i = 0; i < (1 << DEPTH); i = i + 1) memory[i] = 0;
`endif
    if ($value$plusargs("dram=%s", file)) $readmemh(file, memory);
    if (!$value$plusargs("dram_latency=%d", latency)) latency = 32;
    if (!$value$plusargs("dram_stall=%d", stall)) stall = 0;
    if (!$value$plusargs("dram_seed=%d", seed)) seed = 0;
    stall = (stall * 65536) / 1000;
    random = 64'h9E3779B97F4A7C15 ^ {seed, seed};
    now = 0;
    held = 0;
    read_beats_valid = 0;
    written = 0;
    r_in = 0; r_out = 0; r_sent = 0;
    w_in = 0; w_out = 0; w_taken = 0;
    d_in = 0; d_out = 0;
  end

  wire [POINTER-1:0] r_head = r_out[POINTER-1:0];
  wire [POINTER-1:0] w_head = w_out[POINTER-1:0];
  wire [POINTER:0] r_used = r_in - r_out;
  wire [POINTER:0] w_used = w_in - w_out;
  wire [POINTER:0] d_used = d_in - d_out;
  assign read_request_ready = r_used != QUEUE && !held[0];
  assign write_request_ready = w_used != QUEUE && !held[2];
  assign write_beats_ready = w_used != 0 && d_used != QUEUE && !held[3];
  // Due times are compared as differences, so that `now` may wrap.
  wire [31:0] r_ahead = r_due[r_head] - now;
  wire [31:0] d_ahead = d_due[d_out[POINTER-1:0]] - now;

  always @(posedge clk) begin
    now <= now + 1;
    stalls = 0;
    if (stall != 0) begin
      random = random ^ (random << 13);
      random = random ^ (random >> 7);
      random = random ^ (random << 17);
      for (i = 0; i < 4; i = i + 1) stalls[i] = {16'b0, random[16*i +: 16]} < stall;
    end

    held <= stalls;

    // Reads.
    if (read_request_valid && read_request_ready) begin
      r_address[r_in[POINTER-1:0]] <= read_request_address[ADDRESS-1:SHIFT];
      r_beats[r_in[POINTER-1:0]] <= read_request_beats;
      r_due[r_in[POINTER-1:0]] <= now + latency - 1;
      r_in <= r_in + 1;
    end
    if (!read_beats_valid || read_beats_ready) begin
      if (r_used != 0 && (r_ahead == 0 || r_ahead[31]) && !stalls[1]) begin
        at = r_address[r_head] + {{(ADDRESS-SHIFT-BEATS){1'b0}}, r_sent};
        read_beats_valid <= 1;
        read_beats_data <= at < (1 << DEPTH) ? memory[at[DEPTH-1:0]] : {WIDTH{1'b0}};
        if (r_sent + 1'b1 == r_beats[r_head]) begin
          r_out <= r_out + 1;
          r_sent <= 0;
        end else r_sent <= r_sent + 1;
      end else read_beats_valid <= 0;
    end

    // Writes: beats are taken once their request is there.
    if (write_request_valid && write_request_ready) begin
      w_address[w_in[POINTER-1:0]] <= write_request_address[ADDRESS-1:SHIFT];
      w_beats[w_in[POINTER-1:0]] <= write_request_beats;
      w_in <= w_in + 1;
    end
    if (write_beats_valid && write_beats_ready) begin
      at = w_address[w_head] + {{(ADDRESS-SHIFT-BEATS){1'b0}}, w_taken};
      if (at >= (1 << DEPTH)) begin
        $display("simulated DRAM: a write at beat %0d, beyond its %0d", at, 1 << DEPTH);
        $finish;
      end
      merged = memory[at[DEPTH-1:0]];
      for (i = 0; i < WIDTH / 8; i = i + 1)
        if (write_beats_strobe[i]) merged[8*i +: 8] = write_beats_data[8*i +: 8];
      memory[at[DEPTH-1:0]] <= merged;
      if (write_beats_last != (w_taken + 1'b1 == w_beats[w_head])) begin
        $display("simulated DRAM: `last` is wrong at beat %0d of %0d", w_taken, w_beats[w_head]);
        $finish;
      end
      if (w_taken + 1'b1 == w_beats[w_head]) begin
        w_out <= w_out + 1;
        w_taken <= 0;
        d_due[d_in[POINTER-1:0]] <= now + latency - 1;
        d_in <= d_in + 1;
      end else w_taken <= w_taken + 1;
    end
    written <= 0;
    if (d_used != 0 && (d_ahead == 0 || d_ahead[31])) begin
      written <= 1;
      d_out <= d_out + 1;
    end

    if (rst) begin
      read_beats_valid <= 0;
      written <= 0;
      r_in <= 0; r_out <= 0; r_sent <= 0;
      w_in <= 0; w_out <= 0; w_taken <= 0;
      d_in <= 0; d_out <= 0;
    end

    if (back_enable) begin
      if (back_write) memory[back_address] <= back_data;
      else back_answer <= memory[back_address];
    end
  end
endmodule
