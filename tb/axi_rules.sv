// SPDX-License-Identifier: Apache-2.0
// Rules of AXI4 for hdl.axi.master, with 64 bits of data, to be proved by SymbiYosys.
//
// Nothing is assumed of what comes from the machine and from the bus: requests, data, readies,
// responses and the end of an error are free.
module axi_rules (
    input clk,
    input read_valid, input [47:0] read_burst, input read_beats_ready,
    input write_valid, input [47:0] write_burst,
    input beats_valid, input [72:0] beat,
    input clear,
    input awready, input wready, input bvalid, input [1:0] bresp,
    input arready, input rvalid, input [63:0] rdata, input [1:0] rresp, input rlast
);
  wire read_ready, write_ready, beats_ready, written, error, idle;
  wire [39:0] awaddr, araddr, error_address;
  wire [7:0] awlen, arlen, wstrb;
  wire [2:0] awsize, arsize, awprot, arprot;
  wire [1:0] awburst, arburst;
  wire [3:0] awcache, arcache;
  wire awid, arid, awvalid, arvalid, wvalid, wlast, bready, rready;
  wire [63:0] wdata, read_data;
  wire read_beats_valid;
  reg rst = 1;
  always @(posedge clk) rst <= 0;

  axi_master dut (
      .clk(clk), .rst(rst), .clear(clear), .error(error), .error_address(error_address),
      .idle(idle),
      .read__request__valid(read_valid), .read__request__ready(read_ready),
      .read__request__payload(read_burst), .read__beats__valid(read_beats_valid),
      .read__beats__ready(read_beats_ready), .read__beats__payload(read_data),
      .write__request__valid(write_valid), .write__request__ready(write_ready),
      .write__request__payload(write_burst), .write__beats__valid(beats_valid),
      .write__beats__ready(beats_ready), .write__beats__payload(beat), .write__written(written),
      .m_axi_awid(awid), .m_axi_awaddr(awaddr), .m_axi_awlen(awlen), .m_axi_awsize(awsize),
      .m_axi_awburst(awburst), .m_axi_awcache(awcache), .m_axi_awprot(awprot),
      .m_axi_awvalid(awvalid), .m_axi_awready(awready),
      .m_axi_wdata(wdata), .m_axi_wstrb(wstrb), .m_axi_wlast(wlast), .m_axi_wvalid(wvalid),
      .m_axi_wready(wready), .m_axi_bid(1'b0), .m_axi_bresp(bresp), .m_axi_bvalid(bvalid),
      .m_axi_bready(bready),
      .m_axi_arid(arid), .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(arsize),
      .m_axi_arburst(arburst), .m_axi_arcache(arcache), .m_axi_arprot(arprot),
      .m_axi_arvalid(arvalid), .m_axi_arready(arready),
      .m_axi_rid(1'b0), .m_axi_rdata(rdata), .m_axi_rresp(rresp), .m_axi_rlast(rlast),
      .m_axi_rvalid(rvalid), .m_axi_rready(rready)
  );

  // What is offered for the first time.
  reg aw_waits = 0, w_waits = 0;
  wire aw_offered = awvalid && !aw_waits, w_offered = wvalid && !w_waits;
  always @(posedge clk) begin
    aw_waits <= !rst && awvalid && !awready;
    w_waits <= !rst && wvalid && !wready;
  end

  reg failed = 0;  // an error was answered, and is not forgotten
  wire failure = (bvalid && bready && bresp[1]) || (rvalid && rready && rresp[1]);
  reg was_reset = 1;
  always @(posedge clk) begin
    failed <= !rst && ((failed && error) || failure);
    was_reset <= rst;
    if (!rst && !was_reset) begin
      // Valid and what comes with it hold until ready.
      if ($past(awvalid && !awready)) assert (awvalid && $stable(awaddr) && $stable(awlen));
      if ($past(arvalid && !arready)) assert (arvalid && $stable(araddr) && $stable(arlen));
      if ($past(wvalid && !wready))
        assert (wvalid && $stable(wdata) && $stable(wstrb) && $stable(wlast));
    end
    if (!rst) begin
      // Bursts are incrementing, of whole beats, within 4 KiB.
      assert (awsize == 3 && awburst == 1 && awid == 0);
      assert (arsize == 3 && arburst == 1 && arid == 0);
      if (awvalid) assert (awaddr[2:0] == 0 && {1'b0, awaddr[11:3]} + awlen < 512);
      if (arvalid) assert (araddr[2:0] == 0 && {1'b0, araddr[11:3]} + arlen < 512);
      // After an error no address is offered, and no byte is written.
      if (failed) assert (!aw_offered && (!w_offered || wstrb == 0));
    end
  end
endmodule
