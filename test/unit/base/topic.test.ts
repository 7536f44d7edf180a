import { expect } from "chai";
import { matchTopic, topicFilterFault, topicMatches, topicNameFault } from "../../../src/base/topic.ts";

describe("base/topic", () => {
  // The examples of MQTT 5 section 4.7.
  const pairs: Array<[filter: string, topic: string, matches: boolean]> = [
    ["sport/tennis/player1/#", "sport/tennis/player1", true],
    ["sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true],
    ["sport/#", "sport", true],
    ["#", "sport/tennis", true],
    ["sport/tennis/+", "sport/tennis/player1", true],
    ["sport/tennis/+", "sport/tennis/player1/ranking", false],
    ["sport/+", "sport", false],
    ["sport/+", "sport/", true],
    ["+/+", "/finance", true],
    ["/+", "/finance", true],
    ["+", "/finance", false],
    ["#", "$SYS/monitor/Clients", false],
    ["+/monitor/Clients", "$SYS/monitor/Clients", false],
    ["$SYS/#", "$SYS/monitor/Clients", true],
    ["$SYS/monitor/+", "$SYS/monitor/Clients", true],
    ["a/b", "A/b", false],
    ["a//b", "a//b", true],
    ["a/+/b", "a//b", true],
  ];
  for (const [filter, topic, matches] of pairs) {
    it(`${filter} ${matches ? "matches" : "does not match"} ${topic}`, () => {
      expect(topicMatches(filter, topic)).to.equal(matches);
    });
  }

  it("says what the wildcards matched", () => {
    expect(matchTopic("a/+/c/+/#", "a/1/c/2/x/y")).to.deep.equal({ plus: ["1", "2"], rest: "x/y" });
    expect(matchTopic("a/#", "a")).to.deep.equal({ plus: [], rest: "" });
    expect(matchTopic("a/b", "a/b")).to.deep.equal({ plus: [], rest: undefined });
  });

  it("knows what may be published to", () => {
    for (const topic of ["a", "/", "a b/c", "ü/😀", "$SYS/x"]) expect(topicNameFault(topic), topic).to.equal(null);
    for (const topic of ["", "a/+", "#", "a\u0000b", "x".repeat(65_536), "ü".repeat(40_000)])
      expect(topicNameFault(topic), topic.slice(0, 9)).to.be.a("string");
    expect(topicNameFault("a/b/c", 3)).to.equal(null);
    expect(topicNameFault("a/b/c/d", 3)).to.contain("more than 3");
  });

  it("knows what may be subscribed to", () => {
    for (const filter of ["#", "+", "a/#", "+/a/+", "/", "$SYS/#"])
      expect(topicFilterFault(filter), filter).to.equal(null);
    for (const filter of ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a\u0000"])
      expect(topicFilterFault(filter), filter).to.be.a("string");
  });
});
