import { filePath, flag, list, oneOf, section, text, topicFilter } from "./fields.ts";

const rule = () =>
  section({
    allow: oneOf("all", "publish", "subscribe").optional(),
    deny: oneOf("all", "publish", "subscribe").optional(),
    users: list(text('a user name, "*" or anonymous'))
      .optional()
      .describe('"*": any user, not the anonymous one. Default: everybody'),
    topic: topicFilter().describe("%c stands for the client id, %u for the user name"),
  });

export const defaultUsersFile = "users.yaml";

export const access = () =>
  section({
    anonymous: flag().optional().describe("Default: true only while every listener is loopback or a unix socket"),
    usersFile: filePath().prefault(defaultUsersFile).describe("Written by `tidegate passwd`"),
    rules: list(rule()).prefault([]).describe("The first match decides"),
  });
