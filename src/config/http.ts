import * as z from "zod";
import { addressOr, section } from "./fields.ts";

export const defaultHttpUrl = "http://127.0.0.1:8080";

const listen = () =>
  z.union([z.literal(false), addressOr("false", "http")], {
    error: (issue) =>
      issue.input === true
        ? "true is not a url (http://HOST:PORT, or false)"
        : "%k where a url is expected (http://HOST:PORT, or false)",
  });

/** Dashboard, API, metrics. */
export const http = () =>
  section({
    listen: listen().prefault(defaultHttpUrl).describe("false turns it off"),
  });
