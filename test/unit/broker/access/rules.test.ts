import { expect } from "chai";
import fc from "fast-check";
import { filterCovers, topicMatches } from "../../../../src/base/topic.ts";
import { type AccessRule, Rules, type Who } from "../../../../src/broker/access/rules.ts";

type Line = Partial<Omit<AccessRule, "topic">>;
const allow = (topic: string, more: Line = {}): AccessRule => ({
  ...{ effect: "allow", action: "all", users: undefined, topic },
  ...more,
});
const deny = (topic: string, more: Line = {}): AccessRule => allow(topic, { effect: "deny", ...more });
const who = (clientId: string, user?: string): Who => ({ clientId, user });

describe("access rules", () => {
  it("the first that matches decides, and none says no", () => {
    const rules = new Rules([deny("a/secret"), allow("a/#"), deny("#"), allow("b")]);
    const answers = ["a/secret", "a/x", "a", "b", "c"].map((topic) => rules.mayPublish(who("c"), topic));
    expect(answers).to.deep.equal([false, true, true, false, false]);
    expect(new Rules([allow("a")]).mayPublish(who("c"), "b")).to.equal(false);
  });

  it("publish and subscribe are asked apart", () => {
    const rules = new Rules([allow("a", { action: "publish" }), allow("b", { action: "subscribe" }), allow("c")]);
    const may = (topic: string) => [rules.mayPublish(who("x"), topic), rules.mayRead(who("x"), topic)];
    expect(["a", "b", "c"].map(may)).to.deep.equal([
      [true, false],
      [false, true],
      [true, true],
    ]);
  });

  it('users: everybody by default, "*" is not the anonymous one, who is anonymous, names are exact', () => {
    const cases: Array<[users: string[] | undefined, admin: boolean, other: boolean, nobody: boolean]> = [
      [undefined, true, true, true],
      [["*"], true, true, false],
      [["anonymous"], false, false, true],
      [["admin"], true, false, false],
      [["admin", "anonymous"], true, false, true],
      [[], false, false, false],
    ];
    for (const [users, ...expected] of cases) {
      const rules = new Rules([allow("t", { users })]);
      const got = [who("c", "admin"), who("c", "other"), who("c")].map((one) => rules.mayPublish(one, "t"));
      expect(got, String(users)).to.deep.equal(expected);
    }
    // A certificate may carry any name: these words are no names.
    for (const name of ["anonymous", "*"]) {
      expect(new Rules([allow("t", { users: ["anonymous", "admin"] })]).mayPublish(who("c", name), "t")).to.equal(
        false,
      );
    }
  });

  it("%c and %u stand for the client's own id and name", () => {
    const rules = new Rules([allow("s/%c/#"), allow("u/%u", { users: ["*"] }), allow("p-%c-%u/x")]);
    expect(rules.mayPublish(who("dev1", "ann"), "s/dev1/t")).to.equal(true);
    expect(rules.mayPublish(who("dev1", "ann"), "s/dev2/t")).to.equal(false);
    expect(rules.mayPublish(who("dev1", "ann"), "u/ann")).to.equal(true);
    expect(rules.mayPublish(who("dev1", "ann"), "u/bob")).to.equal(false);
    expect(rules.mayPublish(who("dev1", "ann"), "p-dev1-ann/x")).to.equal(true);
  });

  describe("hostile ids and names never widen a rule", () => {
    const topics = ["s/a/t", "s/b/t", "s//t", "s/+/t", "s/#", "s/%c/t", "s/a", "s", "$SYS/x", "$SYS"];
    const own = new Rules([allow("s/%c/#"), allow("%c/#")]);
    const named = new Rules([allow("s/%u/#"), allow("%u/#")]);
    for (const hostile of ["#", "+", "a/b", "/", "", "+/#", "a#", "a+", "$SYS/broker", "s/#"]) {
      it(JSON.stringify(hostile), () => {
        for (const topic of topics) {
          expect(own.mayPublish(who(hostile), topic), topic).to.equal(false);
          expect(own.mayRead(who(hostile), topic), topic).to.equal(false);
          expect(named.mayRead(who("c", hostile), topic), topic).to.equal(false);
          if (!topic.includes("+")) expect(own.maySubscribe(who(hostile), topic), topic).to.equal(false);
        }
        for (const filter of ["#", "+/#", "s/#", "s/+/#", "$SYS/#"])
          expect(own.maySubscribe(who(hostile), filter), filter).to.equal(false);
      });
    }

    it("$SYS as an id reads no $SYS, but what is its own elsewhere", () => {
      const rules = new Rules([allow("%c/#"), allow("s/%c/#")]);
      expect(rules.maySubscribe(who("$SYS"), "$SYS/#")).to.equal(false);
      expect(rules.mayRead(who("$SYS"), "$SYS/broker/version")).to.equal(false);
      expect(rules.mayRead(who("$SYS"), "s/$SYS/x")).to.equal(true);
    });

    it("%c, %u and $& as an id are nothing but text", () => {
      const rules = new Rules([allow("s/%c/#")]);
      expect(rules.mayPublish(who("%u", "admin"), "s/admin/x")).to.equal(false);
      expect(rules.mayPublish(who("%u", "admin"), "s/%u/x")).to.equal(true);
      expect(rules.mayPublish(who("%c"), "s/%c/x")).to.equal(true);
      expect(rules.mayPublish(who("$&"), "s/%c/x")).to.equal(false);
      expect(rules.mayPublish(who("$&"), "s/$&/x")).to.equal(true);
    });

    it("a hostile id does not get round a deny that is not about it, and the anonymous one has no name", () => {
      const rules = new Rules([deny("s/%c/#"), allow("s/#")]);
      expect(rules.mayPublish(who("a"), "s/a/x")).to.equal(false);
      expect(new Rules([allow("u/%u")]).mayPublish(who("c"), "u/")).to.equal(false);
    });
  });

  it("SUBSCRIBE needs the first rule that covers the whole filter to allow it", () => {
    const rules = new Rules([deny("a/b"), allow("a/#"), deny("c/#"), allow("c/d"), allow("+/e")]);
    const may = (filter: string) => rules.maySubscribe(who("x"), filter);
    expect(may("a/#")).to.equal(true); // the deny covers a part: its topics are withheld at delivery
    expect(may("a/+")).to.equal(true);
    expect(may("a/b")).to.equal(false);
    expect(may("c/d")).to.equal(false);
    expect(may("#")).to.equal(false);
    expect(may("+/e")).to.equal(true);
    expect(may("z/e")).to.equal(true);
    expect(may("+/+")).to.equal(false);
    expect(may("$share/g/a/#")).to.equal(true);
    expect(may("$share/g/#")).to.equal(false);
    expect(rules.mayRead(who("x"), "a/b")).to.equal(false);
  });

  it("$SYS is read with a rule that names it, not with #", () => {
    const all = new Rules([allow("#")]);
    expect(all.maySubscribe(who("x"), "#")).to.equal(true);
    expect(all.maySubscribe(who("x"), "$SYS/#")).to.equal(false);
    expect(all.mayRead(who("x"), "$SYS/broker/version")).to.equal(false);
    const named = new Rules([allow("$SYS/#"), allow("#")]);
    expect(named.maySubscribe(who("x"), "$SYS/#")).to.equal(true);
    expect(named.maySubscribe(who("x"), "$SYS/broker/+")).to.equal(true);
    expect(named.mayRead(who("x"), "$SYS/broker/version")).to.equal(true);
  });

  it("covers means: every topic of the one is a topic of the other", () => {
    const level = fc.constantFrom("a", "b", "", "$s", "+");
    const filter = fc
      .tuple(fc.array(level, { minLength: 1, maxLength: 3 }), fc.boolean())
      .map(([levels, open]) => (open ? [...levels, "#"] : levels))
      .filter((levels) => levels.join("/") !== "");
    const topics: string[] = [];
    const names = ["a", "b", "", "$s", "z"];
    const grow = (front: string[]): void => {
      if (front.length > 0) topics.push(front.join("/"));
      if (front.length < 4) for (const name of names) grow([...front, name]);
    };
    grow([]); // with "", which nobody publishes to: that /# matches it as well and /+/# does not is no reason to look closer
    fc.assert(
      fc.property(fc.oneof(filter, fc.constant(["#"])), fc.oneof(filter, fc.constant(["#"])), (rule, wanted) => {
        const matched = topics.filter((topic) => topicMatches(wanted.join("/"), topic));
        const all = matched.every((topic) => topicMatches(rule.join("/"), topic));
        if (matched.length > 0)
          expect(filterCovers(rule, wanted), `${rule.join("/")} over ${wanted.join("/")}`).to.equal(all);
      }),
      { numRuns: 500 },
    );
  });
});
