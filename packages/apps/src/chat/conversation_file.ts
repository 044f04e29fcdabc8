/**
 * Conversations as files: JSON with a format name and a version, checked field by field when read, written whole or
 * not at all.
 */
import { MllmError, systemReason } from "@mllm/core";
import type { ChatTurn } from "../engine.ts";
import { readTextFile } from "../given_text.ts";

const CONVERSATION_FORMAT = "mllm-conversation";
const CONVERSATION_VERSION = 1;
/** A larger file (bytes) is no conversation. */
const FILE_BYTES_MAX = 64 << 20;
const MESSAGES_MAX = 100_000;

export interface SavedConversation {
  /** Model that it was held with; for information. */
  model?: string;
  system?: string;
  messages: ChatTurn[];
  /** As `Settings.toJson` gives them. */
  settings: Record<string, unknown>;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function bad(file: string, what: string): MllmError {
  return new MllmError("invalid_file", `this is not a conversation that can be loaded: ${what}`, { file });
}

/** Parses and checks. Throws `invalid_file` that says what is wrong. */
export function parseConversation(text: string, file: string): SavedConversation {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw bad(file, "it is not JSON");
  }
  if (!isRecord(json) || json.format !== CONVERSATION_FORMAT) {
    throw bad(file, `"format" is not "${CONVERSATION_FORMAT}"`);
  }
  if (json.version !== CONVERSATION_VERSION) {
    throw bad(file, `its version is ${JSON.stringify(json.version)} and this program reads ${CONVERSATION_VERSION}`);
  }
  const { model, system, messages, settings = {} } = json;
  if (model !== undefined && typeof model !== "string") throw bad(file, '"model" is not a text');
  if (system !== undefined && typeof system !== "string") throw bad(file, '"system" is not a text');
  if (!isRecord(settings)) throw bad(file, '"settings" is not an object');
  if (!Array.isArray(messages) || messages.length > MESSAGES_MAX) throw bad(file, '"messages" is not a list');
  const turns = messages.map((message: unknown, i): ChatTurn => {
    if (!isRecord(message) || typeof message.content !== "string") throw bad(file, `message ${i} has no text`);
    const expected = i % 2 === 0 ? "user" : "assistant";
    if (message.role !== expected) {
      throw bad(file, `message ${i} is by ${JSON.stringify(message.role)} where "${expected}" is due`);
    }
    return { role: expected, content: message.content };
  });
  if (turns.length % 2 !== 0) throw bad(file, "its last message has no reply");
  return { model, system, messages: turns, settings };
}

/** Reads a conversation. Throws as `readTextFile` and `parseConversation`. */
export function readConversation(path: string): SavedConversation {
  return parseConversation(readTextFile(path, FILE_BYTES_MAX), path);
}

export interface WriteOptions {
  /** Replace whatever is there. */
  replace?: boolean;
}

/**
 * Writes a conversation. A file that is there stays as it is unless `replace`; a failure leaves no half file.
 * Throws `invalid_argument` or `io`.
 */
export async function writeConversation(
  path: string,
  conversation: SavedConversation,
  { replace = false }: WriteOptions = {},
): Promise<void> {
  const { model, system, messages, settings } = conversation;
  const json = { format: CONVERSATION_FORMAT, version: CONVERSATION_VERSION, model, system, settings, messages };
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    const there = await Deno.lstat(path).catch(() => undefined);
    if (there?.isDirectory) throw new MllmError("invalid_argument", "this is a folder", { file: path });
    if (there !== undefined && !replace) {
      throw new MllmError("invalid_argument", "there is a file of that name already", {
        file: path,
        next: `/save! ${path} replaces it`,
      });
    }
    await Deno.writeTextFile(temporary, JSON.stringify(json, null, 2) + "\n", { createNew: true });
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    if (error instanceof MllmError) throw error;
    throw new MllmError("io", `the conversation can't be written: ${systemReason(error)}`, {
      file: path,
      cause: error,
    });
  }
}
