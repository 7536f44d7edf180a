import type { Publisher, Routing } from "../base/contracts.ts";
import type { RetryResult, RouteFailure } from "../base/deadLetters.ts";
import type { Message } from "../base/message.ts";

/** A message that a route could not transform, given to that route once more. What it makes is published; nothing is when it fails again. */
export function applyAgain(routing: Routing, publisher: Publisher, route: string, message: Message): RetryResult {
  const bound = routing.routesFor(message.topic).find(({ name }) => name === route);
  if (bound === undefined) return no("no_route", `no route ${route} takes this topic any more`);
  const failures: RouteFailure[] = [];
  const made = bound.apply(message, (failure) => failures.push(failure));
  const [failure] = failures;
  if (failure !== undefined) return no("refused_again", `${failure.code}: ${failure.text}`);
  if (made.length === 0) return no("nothing_made", `the route ${route} made nothing of it`);
  let group = 0;
  for (const derived of made) {
    const result = publisher.publish(derived);
    if (!result.accepted) return no(result.reason, "the gateway did not take what the route made of it");
    group = Math.max(group, result.group);
  }
  return { ok: true, group };
}

const no = (code: string, message: string): RetryResult => ({ ok: false, code, message });
