import { configFault } from "../codecs/fault.ts";
import { createDecodeStep } from "./decode.ts";
import type { Step, StepContext } from "./step.ts";

/** Every kind of step, by its key in the config. */
const makers = {
  decode: createDecodeStep,
} as const satisfies Record<string, (options: string, context: StepContext) => Step>;

export type StepKind = keyof typeof makers;
export const stepKinds = Object.keys(makers) as readonly StepKind[];

/** One step of a route's list: exactly one key, which says what it does, and its options. */
export type StepDefinition = {
  [Kind in StepKind]: { readonly [Key in Kind]: Parameters<(typeof makers)[Kind]>[0] };
}[StepKind];

export interface CompiledStep {
  readonly kind: StepKind;
  readonly run: Step;
}

/** @throws TidegateError TG_CONFIG */
export function compileStep(definition: StepDefinition, context: StepContext): CompiledStep {
  const kinds = Object.keys(definition);
  const kind = stepKinds.find((known) => known === kinds[0]);
  if (kind === undefined || kinds.length !== 1)
    throw configFault(`${context.where}: wants one of ${stepKinds.join(", ")}`);
  return { kind, run: makers[kind](definition[kind], context) };
}
