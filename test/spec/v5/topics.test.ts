import { expect } from "chai";
import { P } from "./frames.ts";
import type { Seen } from "./seen.ts";
import { joined, notGranted, withRig } from "./support.ts";

const topics = [
  ...["a", "a/", "/", "/a", "a/b", "a/b/c", "a//c", "//", "A/b", "a b/c", "a/b/", "sport/tennis/player1/ranking"],
  ...["$t", "$t/a", "$a/b", "a/$b", "$"],
];

/** Section 4.7 in its plainest form: level by level. */
function matches(filter: string, topic: string): boolean {
  if (/^[#+]/.test(filter) && topic.startsWith("$")) return false;
  const levels = filter.split("/");
  const names = topic.split("/");
  for (const [at, level] of levels.entries()) {
    if (level === "#") return true; // also the parent: names may have ended before it
    if (at >= names.length || (level !== "+" && level !== names[at])) return false;
  }
  return levels.length === names.length;
}

const filters: ReadonlyArray<readonly [string, string]> = [
  ["[MQTT-4.7.1-1]", "#"],
  ["[MQTT-4.7.1-1]", "a/#"],
  ["[MQTT-4.7.1-1]", "a/b/#"],
  ["[MQTT-4.7.1-1]", "/#"],
  ["[MQTT-4.7.1-1]", "sport/tennis/player1/#"],
  ["[MQTT-4.7.1-1, -2]", "+/#"],
  ["[MQTT-4.7.1-1, -2]", "+/+/#"],
  ["[MQTT-4.7.1-2]", "+"],
  ["[MQTT-4.7.1-2]", "/+"],
  ["[MQTT-4.7.1-2]", "+/"],
  ["[MQTT-4.7.1-2]", "+/+"],
  ["[MQTT-4.7.1-2]", "a/+"],
  ["[MQTT-4.7.1-2]", "+/b"],
  ["[MQTT-4.7.1-2]", "a/+/c"],
  ["[MQTT-4.7.1-2]", "+/+/+"],
  ["[MQTT-4.7.3-4]", "a"],
  ["[MQTT-4.7.3-4]", "A/b"],
  ["[MQTT-4.7.3-4]", "a/"],
  ["[MQTT-4.7.3-4]", "/"],
  ["[MQTT-4.7.3-4]", "a//c"],
  ["[MQTT-4.7.3-4]", "a b/c"],
  ["[MQTT-4.7.2-1]", "$t/#"],
  ["[MQTT-4.7.2-1]", "$t/+"],
  ["[MQTT-4.7.2-1]", "$a/b"],
  ["[MQTT-4.7.2-1]", "a/+"],
];

describe("MQTT 5 topics: matching", () => {
  it(
    "[MQTT-4.7.1-1, -2] [MQTT-4.7.2-1] [MQTT-3.3.2-3] the examples of the text, whatever our table above says",
    withRig(async () => {
      const yes = [
        ["sport/tennis/player1/#", "sport/tennis/player1/ranking"],
        ["a/#", "a"],
        ["+/+", "/finance"],
        ["/+", "/finance"],
      ];
      for (const [filter = "", topic = ""] of yes) expect(matches(filter, topic), `${filter} ${topic}`).to.equal(true);
      const no = [
        ["+", "/finance"],
        ["#", "$SYS"],
        ["+/monitor", "$SYS/monitor"],
        ["sport/+", "sport"],
      ];
      for (const [filter = "", topic = ""] of no) expect(matches(filter, topic), `${filter} ${topic}`).to.equal(false);
    }),
  );
  for (const [clause, filter] of filters) {
    it(
      `[MQTT-4.7.0-1] ${clause} the filter ${filter} matches what it should of ${topics.length} topics, live and retained`,
      withRig(async (rig) => {
        // Whether clients may publish to topics with $ is the server's affair (4.7.2): none of those must come, and none that does not match.
        const expected = topics.filter((topic) => matches(filter, topic) && !topic.startsWith("$"));
        const rest = (list: readonly Seen[]): string[] => {
          const own = list.map(({ topic }) => topic);
          for (const topic of own) expect(matches(filter, topic), topic).to.equal(true);
          return own.filter((topic) => !topic.startsWith("$"));
        };
        const live = await joined(rig, "live");
        await live.subscribe(filter);
        const writer = await joined(rig, "writer");
        for (const topic of topics) writer.publish(topic, topic, { retain: true });
        expect(rest(await live.take())).to.deep.equal(expected);
        const late = await joined(rig, "late");
        await late.subscribe(filter);
        expect(rest(await late.take())).to.have.members(expected);
      }),
    );
  }
  it(
    "[MQTT-4.7.2-1] the server's own $SYS topics do not come by # and +/#, and do by $SYS/#",
    withRig(async (rig) => {
      const all = await joined(rig, "all");
      await all.subscribe([
        ["#", 0],
        ["+/broker/#", 0],
      ]);
      const sys = await joined(rig, "sys");
      await sys.subscribe("$SYS/#");
      rig.advance(30_000);
      expect(await all.says()).to.deep.equal([]);
      expect((await sys.take()).every(({ topic }) => topic.startsWith("$SYS/"))).to.equal(true);
    }),
  );
  it(
    "[4.7.2] a client's PUBLISH to a topic with $ is answered like every other one, and does not come by wildcards",
    withRig(async (rig) => {
      const seen = await joined(rig, "seen");
      await seen.subscribe([
        ["#", 0],
        ["+/t", 0],
        ["$share/g/+/t", 0],
      ]);
      const peer = await joined(rig);
      peer.publish("$x/t", "x", { qos: 1, id: 1, retain: true });
      peer.publish("$x/t", "x", { qos: 2, id: 2 });
      expect((await peer.take()).map(({ kind, id }) => [kind, id])).to.deep.equal([
        ["PUBACK", 1],
        ["PUBREC", 2],
      ]);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-4.7.1-1] # also matches the parent level",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("sport/tennis/player1/#");
      for (const topic of ["sport/tennis/player1", "sport/tennis/player1/score/wimbledon", "sport/tennis/player10"])
        peer.publish(topic);
      expect((await peer.take()).map(({ topic }) => topic)).to.deep.equal([
        "sport/tennis/player1",
        "sport/tennis/player1/score/wimbledon",
      ]);
    }),
  );
  it(
    "[MQTT-4.7.1-1] topics of many levels",
    withRig(async (rig) => {
      const peer = await joined(rig);
      const deep = Array.from({ length: 128 }, (_, at) => at).join("/");
      await peer.subscribe("0/#", 0, [[P.subId, 1]]);
      peer.publish(deep);
      expect((await peer.take()).map(({ topic }) => topic)).to.deep.equal([deep]);
    }),
  );
});

describe("MQTT 5 topics: filters that are wrong", () => {
  for (const filter of ["sport/tennis#", "sport/tennis/#/ranking", "sport+", "sp+rt/a", "#a", "a/#b", "a/b+/c", "+#"]) {
    it(
      `[MQTT-4.7.1-1, -2] ${filter} is not granted`,
      withRig((rig) => notGranted(rig, filter)),
    );
  }
  it(
    "[MQTT-4.7.3-1] no filter of no characters, shared or not",
    withRig(async (rig) => {
      await notGranted(rig, "");
    }),
  );
});
