import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";

/** What a tool has answered: a value of JSON, or why it failed. */
export type McpAnswer = { readonly value: unknown } | { readonly failed: string };

/**
 * A tool's answer as Python has it: its structured content, where it has some; a text, where it is one; else the list of its contents.
 */
export function answerOf({ content = [], structuredContent, isError }: Partial<CallToolResult>): McpAnswer {
  const texts = content.filter((one) => one.type === "text").map(({ text }) => text);
  const isText = texts.length === content.length;
  if (isError) return { failed: texts.join("\n") || "it failed, and does not say why" };
  if (structuredContent !== undefined) return { value: structuredContent };
  return { value: isText ? texts.join("\n") : content };
}
