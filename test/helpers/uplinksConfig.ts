/**
 * A gateway's config with uplinks that try again soon, for tests of what becomes of their links.
 * @param uplinks their YAML, by name; forward and backoff are added, and OWN stands for the gateway's own MQTT port
 */
export function uplinksConfig(port: number, http: number, uplinks: Record<string, string>): string {
  const list = Object.entries(uplinks).map(
    ([name, yaml]) =>
      `  - { name: ${name}, backoff: { min: 20ms, max: 100ms }, forward: [ { topic: "plant/#" } ], ${yaml} }\n`,
  );
  return `
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }
http: { listen: "http://127.0.0.1:${http}" }
storage: { minFreeBytes: 0 }
uplinks:
${list.join("").replace("OWN", String(port))}`;
}
