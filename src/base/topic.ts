/** MQTT topic names and filters (MQTT 5 section 4.7; the same in 3.1.1). Strings here are decoded UTF-8 without U+0000. */

/** Longest topic in UTF-8 bytes that a two-byte length can carry. */
export const topicBytesMax = 65_535;

/** Null when `topic` may be published to, else what is wrong with it. @param levelsMax `mqtt.limits.maxTopicLevels` */
export function topicNameFault(topic: string, levelsMax = 128): string | null {
  if (topic.length === 0) return "a topic must not be empty"; // [MQTT-4.7.3-1]
  if (topic.includes("+") || topic.includes("#")) return "a topic name must not contain + or #"; // [MQTT-3.3.2-2]
  return commonFault(topic, levelsMax);
}

/** Null when `filter` may be subscribed to, else what is wrong with it. `$share/...` must have been taken apart before. */
export function topicFilterFault(filter: string, levelsMax = 128): string | null {
  if (filter.length === 0) return "a filter must not be empty"; // [MQTT-4.7.3-1]
  const levels = filter.split("/");
  for (let at = 0; at < levels.length; at += 1) {
    const level = levels[at] ?? "";
    if (level.includes("#") && (level !== "#" || at !== levels.length - 1)) return "# must be alone in the last level"; // [MQTT-4.7.1-1]
    if (level.includes("+") && level !== "+") return "+ must be alone in its level"; // [MQTT-4.7.1-2]
  }
  return commonFault(filter, levelsMax);
}

function commonFault(topic: string, levelsMax: number): string | null {
  if (topic.includes("\u0000")) return "U+0000 is not allowed"; // [MQTT-4.7.3-2]
  if (topic.length > topicBytesMax || Buffer.byteLength(topic) > topicBytesMax) return "longer than 65535 bytes"; // [MQTT-4.7.3-3]
  let levels = 1;
  for (let at = topic.indexOf("/"); at >= 0; at = topic.indexOf("/", at + 1)) levels += 1;
  return levels > levelsMax ? `more than ${levelsMax} levels` : null;
}

/**
 * Whether `topic` is matched by `filter`, one pair at a time; the broker's trie does it for many. A filter that starts with a wildcard
 * does not match topics that start with $ [MQTT-4.7.2-1].
 */
export function topicMatches(filter: string, topic: string): boolean {
  return matchTopic(filter, topic) !== null;
}

/**
 * What the wildcards matched: `plus[0]` is the first +, `rest` what # stands for ("" when it matched the parent level itself). Null: no match.
 */
export function matchTopic(filter: string, topic: string): { plus: string[]; rest: string | undefined } | null {
  if (topic.startsWith("$") && (filter.startsWith("+") || filter.startsWith("#"))) return null;
  const wanted = filter.split("/");
  const levels = topic.split("/");
  const plus: string[] = [];
  for (let at = 0; at < wanted.length; at += 1) {
    const want = wanted[at];
    if (want === "#") return { plus, rest: levels.slice(at).join("/") };
    const level = levels[at];
    if (level === undefined) return null;
    if (want === "+") plus.push(level);
    else if (want !== level) return null;
  }
  return levels.length === wanted.length ? { plus, rest: undefined } : null;
}

/** Whether filter `rule` matches every topic that `wanted` (a filter or a topic) does, level by level. */
export function filterCovers(rule: readonly string[], wanted: readonly string[]): boolean {
  // A wildcard at the front does not match $ topics [MQTT-4.7.2-1].
  if (wanted[0]?.startsWith("$") === true && (rule[0] === "#" || rule[0] === "+")) return false;
  if (rule[0] === "+" && rule[1] === "#") return true; // every topic has a first level
  for (let at = 0; at < rule.length; at += 1) {
    if (rule[at] === "#") return true; // also the parent level itself
    const level = wanted[at];
    if (level === undefined || level === "#") return false;
    if (rule[at] !== "+" && rule[at] !== level) return false;
  }
  return rule.length === wanted.length;
}
