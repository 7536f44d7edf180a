import { expect } from "chai";
import { configJsonSchema } from "../../../src/config/schema.ts";

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  required?: string[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  default?: unknown;
  pattern?: string;
  additionalProperties?: unknown;
}

describe("config: JSON Schema for editors", () => {
  const schema = JSON.parse(JSON.stringify(configJsonSchema())) as Schema;
  const at = (...path: string[]): Schema =>
    path.reduce<Schema>((node, part) => (part === "[]" ? node.items : node.properties?.[part]) ?? {}, schema);

  it("describes what is written, with defaults as they are written", () => {
    expect(Object.keys(schema.properties ?? {})).to.deep.equal(
      "gateway mqtt storage deadLetters access codecs sources routes uplinks http".split(" "),
    );
    expect(schema.required).to.equal(undefined);
    expect(schema.additionalProperties).to.equal(false);
    expect(at("mqtt", "limits", "connectTimeout").default).to.equal("10s");
    expect(at("storage", "maxBytes").anyOf?.map(({ type }) => type)).to.deep.equal(["string", "number"]);
    expect(at("uplinks", "[]").required).to.deep.equal(["name"]);
    expect(at("sources", "[]").oneOf?.length).to.equal(3);
    const sni = at("mqtt", "listeners", "[]", "tls", "sni").additionalProperties as Schema;
    expect(sni.required).to.deep.equal(["cert", "key"]);
  });

  it("has patterns that the documented spellings match", () => {
    const size = new RegExp(at("storage", "maxBytes").anyOf?.[0]?.pattern ?? "^$");
    for (const text of ["16 MiB", "256KiB", "1 GiB", "12", "1.5 kB"]) expect(text).to.match(size);
    expect("12 XB").not.to.match(size);
    const duration = new RegExp(at("uplinks", "[]", "keepAlive").anyOf?.[0]?.pattern ?? "^$");
    for (const text of ["500ms", "10s", "5m", "2h", "7d", "0"]) expect(text).to.match(duration);
    expect("10").not.to.match(duration);
  });
});
