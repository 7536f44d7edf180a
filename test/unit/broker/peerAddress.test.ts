import { expect } from "chai";
import { plainAddress } from "../../../src/broker/peerAddress.ts";

describe("one spelling for one address", () => {
  const spellings = {
    "192.0.2.7": "192.0.2.7",
    "::ffff:192.0.2.7": "192.0.2.7",
    "::FFFF:192.0.2.7": "192.0.2.7",
    "::ffff:c000:207": "192.0.2.7",
    "0:0:0:0:0:ffff:192.0.2.7": "192.0.2.7",
    "2001:DB8:0:0::1": "2001:db8::1",
    "::1": "::1",
    "fe80::1%eth0": "fe80::1%eth0",
    // no addresses
    "::ffff:999.0.2.7": "::ffff:999.0.2.7",
    "::ffff:192.0.2.07": "::ffff:192.0.2.07",
    "a:b": "a:b",
    "": "",
  };
  for (const [given, plain] of Object.entries(spellings))
    it(`${given || "nothing"} is ${plain || "nothing"}`, () => expect(plainAddress(given)).to.equal(plain));
});
