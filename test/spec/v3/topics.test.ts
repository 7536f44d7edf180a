import { expect } from "chai";
import { chapter, publish, subscribed, unsuback, unsubscribe, violation } from "./support.ts";

type Row = readonly [clause: string, filter: string, matches: readonly string[], others: readonly string[]];

/** From the examples and rules of section 4.7. */
const rows: readonly Row[] = [
  [
    "[MQTT-4.7.1-2]",
    "sport/tennis/player1/#",
    [
      "sport/tennis/player1",
      "sport/tennis/player1/ranking",
      "sport/tennis/player1/score/wimbledon",
      "sport/tennis/player1/",
    ],
    ["sport/tennis/player10", "sport/tennis", "/sport/tennis/player1"],
  ],
  ["[MQTT-4.7.1-2]", "sport/#", ["sport", "sport/", "sport/a/b"], ["sports", "Sport", "/sport"]],
  ["[MQTT-4.7.1-2]", "#", ["a", "a/b", "/", "//", "/a", " "], ["$a", "$", "$SYS/x", "$a/b"]],
  ["[MQTT-4.7.1-2]", "/#", ["/", "/a", "/a/b", "//"], ["a", "a/b"]],
  [
    "[MQTT-4.7.1-3]",
    "sport/tennis/+",
    ["sport/tennis/player1", "sport/tennis/"],
    ["sport/tennis", "sport/tennis/player1/ranking"],
  ],
  ["[MQTT-4.7.1-3]", "sport/+", ["sport/", "sport/a"], ["sport", "sport/a/b"]],
  ["[MQTT-4.7.1-3]", "+", ["a", "finance", " "], ["/finance", "a/", "/", "$a"]],
  ["[MQTT-4.7.1-3]", "+/+", ["/finance", "a/b", "/", "a/"], ["a", "a/b/c", "//", "$a/b"]],
  ["[MQTT-4.7.1-3]", "/+", ["/finance", "/"], ["finance", "/a/b"]],
  [
    "[MQTT-4.7.1-3]",
    "+/tennis/#",
    ["sport/tennis", "/tennis", "sport/tennis/a/b"],
    ["tennis", "sport/a/tennis", "$x/tennis"],
  ],
  [
    "[MQTT-4.7.1-3]",
    "sport/+/player1",
    ["sport/tennis/player1", "sport//player1"],
    ["sport/player1", "sport/a/b/player1"],
  ],
  ["[MQTT-4.7.1-3]", "+/+/+", ["a/b/c", "//", "/b/"], ["a/b", "a/b/c/d"]],
  ["[MQTT-4.7.1-3]", "a/+/+/d/#", ["a/b/c/d", "a///d/e"], ["a/b/d", "a/b/c/e"]],
  ["[MQTT-4.7.2-1]", "$SYS/monitor/+", ["$SYS/monitor/Clients"], ["SYS/monitor/Clients", "$SYS/monitor"]],
  ["[MQTT-4.7.2-1]", "$mine/#", ["$mine", "$mine/a/b"], ["mine/a", "$mines"]],
  ["[MQTT-4.7.2-1]", "+/monitor/Clients", ["a/monitor/Clients"], ["$SYS/monitor/Clients", "$x/monitor/Clients"]],
  ["[MQTT-4.7.2-1]", "a/+", ["a/$b", "a/$SYS"], ["$a/b"]],
  ["[MQTT-4.7.2-1]", "$x", ["$x"], ["x"]],
  [
    "[MQTT-4.7.3-4]",
    "ACCOUNTS",
    ["ACCOUNTS"],
    ["Accounts", "accounts", "ACCOUNTS ", " ACCOUNTS", "/ACCOUNTS", "ACCOUNTS/"],
  ],
  ["[MQTT-4.7.3-4]", "Accounts payable", ["Accounts payable"], ["Accounts  payable", "Accounts", "Accounts%20payable"]],
  ["[MQTT-4.7.3-4]", "caf\u00e9", ["caf\u00e9"], ["cafe\u0301", "CAF\u00c9", "cafe"]],
  ["[MQTT-4.7.3-4]", "\u212b", ["\u212b"], ["\u00c5", "A\u030a"]],
  ["[MQTT-4.7.3-4]", "a//b", ["a//b"], ["a/b", "a///b"]],
  ["[MQTT-4.7.3-4]", "a/../b", ["a/../b"], ["b", "a/b"]],
  ["[MQTT-4.7.3-4]", "/", ["/"], ["//", "", "a"].filter(Boolean)],
  ["[MQTT-4.7.3-4]", "\ufeff", ["\ufeff"], [" ", "\u200b"]],
  ["[MQTT-4.7.3-1]", "a", ["a"], ["b", "aa"]],
];

/** A server may keep clients from using topics with $ between them, so their delivery is not asked for. */
const closedTo = (topic: string): boolean => topic.startsWith("$");

chapter("topics and filters", (world) => {
  for (const [clause, filter, matches, others] of rows) {
    it(`${clause} ${JSON.stringify(filter)} matches ${matches.map((topic) => JSON.stringify(topic)).join(", ")} and nothing else`, async () => {
      const wire = await world().subscriber("s", [filter, 0]);
      const publisher = await world().join("p");
      for (const topic of others) {
        const other = closedTo(topic) ? await world().join("q") : publisher; // it may be refused
        other.send(publish(topic, "no"));
        await other.take();
      }
      await wire.quiet();
      for (const topic of matches.filter((topic) => !closedTo(topic))) {
        publisher.send(publish(topic, "yes"));
        await wire.gets(publish(topic, "yes"));
      }
      wire.send(unsubscribe(1, filter));
      await wire.gets(unsuback(1));
      for (const topic of matches.filter((topic) => !closedTo(topic))) publisher.send(publish(topic, "no more"));
      await wire.quiet();
    });
  }

  it("[MQTT-4.7.2-1] the server's own topics come for $SYS/#, not for # and +/#", async () => {
    const system = await world().subscriber("system", ["$SYS/#", 0]);
    const open = await world().subscriber("open", ["#", 0], ["+/#", 0], ["+/broker/#", 0]);
    world().rig.advance(60_000);
    const topics = (await system.deliveries()).map(({ topic }) => topic);
    expect(topics.length).to.be.greaterThan(0);
    expect(topics.every((topic) => topic.startsWith("$SYS/"))).to.equal(true);
    await open.quiet();
  });

  it("[MQTT-4.7.3-3] [MQTT-4.7.3-1] of 65535 bytes are served", async () => {
    const topic = "x".repeat(65_535);
    const wire = await world().subscriber("s", [topic, 0]);
    (await world().join("p")).send(publish(topic, "p"));
    await wire.gets(publish(topic, "p"));
  });

  it("[MQTT-4.7.3-3] a topic and a filter of 65535 bytes, wildcard and all", async () => {
    const topic = `a/${"y".repeat(65_533)}`;
    const wire = await world().subscriber("s", ["a/+", 0], ["a/#", 0], [`+/${"y".repeat(65_533)}`, 0]);
    (await world().join("p")).send(publish(topic, "p"));
    await wire.receives(topic, "p");
  });

  it("[MQTT-4.7.1-1] [MQTT-4.7.3-2] wildcards and U+0000 are no part of a topic name", async () => {
    await violation(world(), publish("a/#", "p"));
  });

  it("[MQTT-4.7.3-4] filters of two clients that differ in their form only stay two", async () => {
    const composed = await world().subscriber("composed", ["\u00e9", 0]);
    const apart = await world().subscriber("apart", ["e\u0301", 0]);
    await subscribed(await world().join("third"), ["\u00e9", 0]);
    (await world().join("p")).send(publish("e\u0301", "p"));
    await apart.gets(publish("e\u0301", "p"));
    await composed.quiet();
  });
});
