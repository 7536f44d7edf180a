import { expect } from "chai";
import { syncCalls } from "../../bench/syncTrace.ts";

// What the kernel prints, of thread 71: it sleeps on the disk, is woken, and finds both cores taken.
const trace = `# tracer: nop
            node-71      [000] ..... 10.000000: sys_fdatasync(fd: 15)
            node-71      [000] d..2. 10.000050: sched_switch: prev_comm=node prev_pid=71 prev_prio=120 prev_state=D ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d.h1. 10.000300: sched_waking: comm=node pid=71 prio=120 target_cpu=000
            node-60      [000] d..2. 10.002300: sched_switch: prev_comm=node prev_pid=60 prev_prio=120 prev_state=R ==> next_comm=node next_pid=71 next_prio=120
            node-71      [000] d..2. 10.002350: sched_switch: prev_comm=node prev_pid=71 prev_prio=120 prev_state=R+ ==> next_comm=node next_pid=60 next_prio=120
            node-60      [000] d..2. 10.002850: sched_switch: prev_comm=node prev_pid=60 prev_prio=120 prev_state=S ==> next_comm=node next_pid=71 next_prio=120
            node-71      [000] ..... 10.002900: sys_fdatasync -> 0x0
`;

describe("what a kernel trace says of syncs", () => {
  it("a call's time, and how much of it its thread had no core: woken or preempted, and not running", () => {
    const [call, ...more] = syncCalls(trace);
    expect(more).to.deep.equal([]);
    expect(call?.ms).to.be.closeTo(2.9, 1e-6);
    expect(call?.waitedMs).to.be.closeTo(2.5, 1e-6); // 2.0 after waking, 0.5 preempted; not the 0.25 of the disk
  });

  it("a wait before the call is not the call's", () => {
    const before = trace.replace(/^# .*\n/, "").split("\n");
    const woken =
      "          <idle>-0       [000] d.h1. 9.990000: sched_waking: comm=node pid=71 prio=120 target_cpu=000";
    const came = before[3]?.replace("10.002300", "9.995000") ?? "";
    expect(syncCalls([woken, came, ...before].join("\n"))[0]?.waitedMs).to.be.closeTo(2.5, 1e-6);
  });

  it("calls cut off by the start or the end of the trace are left out", () => {
    const lines = trace.split("\n");
    expect(syncCalls(lines.slice(2).join("\n"))).to.deep.equal([]);
    expect(syncCalls(lines.slice(0, -2).join("\n"))).to.deep.equal([]);
  });
});
