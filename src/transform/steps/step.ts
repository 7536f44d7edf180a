import type { Message } from "../../base/message.ts";
import type { CodecRegistry } from "../codecs/registry.ts";

/**
 * One step of a route, made once per route: takes what the step before gave (the first one the message's payload) and gives a JSON value.
 * @throws TidegateError TG_DECODE when the message does not fit
 */
export type Step = (value: unknown, message: Message) => unknown;

/** What a step is made with. */
export interface StepContext {
  readonly codecs: CodecRegistry;
  /** Route and step, for messages. */
  readonly where: string;
  /** 0 for the first step. */
  readonly index: number;
}
