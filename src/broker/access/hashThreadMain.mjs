/** What the thread of hashThread.ts runs. No TypeScript, so that it starts from src as it does from dist: with nothing to load. */
import { scryptSync } from "node:crypto";
import { parentPort } from "node:worker_threads";

parentPort.on("message", ({ password, salt, bytes, options }) => {
  parentPort.postMessage(scryptSync(password, salt, bytes, options));
});
