/** The commands of the chat: what begins with a slash. */
import { formatMiB, MllmError } from "@mllm/core";
import { type SettingRow, Settings, settingsTable, unknownSetting } from "../settings.ts";
import { nearest } from "../suggest.ts";
import { readConversation, writeConversation } from "./conversation_file.ts";
import { isStoppedEarly, perSecond, statsLine, STOPPED_EARLY } from "./stats_line.ts";
import type { Talk } from "./talk.ts";

/** Switches of the chat itself. */
export interface ChatSwitches {
  stats: boolean;
  wordwrap: boolean;
  history: boolean;
}

export interface CommandContext {
  talk: Talk;
  /** Those that this form of the chat has. */
  switches: Partial<ChatSwitches>;
  /** The switches as they were at the start: what `default` goes back to. */
  readonly initialSwitches: Readonly<Partial<ChatSwitches>>;
  /** Whether there is a file that history could be kept in. */
  readonly hasHistoryFile: boolean;
  print(text: string): void;
  /** Files that this session loaded or saved: saving there again is no surprise. */
  ownFiles: Set<string>;
  /** Expands a leading `~`. */
  home?: string;
}

interface Command {
  name: string;
  aliases?: readonly string[];
  usage: string;
  doc: string;
  /** Whether something may stand behind it. */
  takesArgument: boolean;
  /** Answers true to leave the chat. */
  run(context: CommandContext, argument: string): void | boolean | Promise<void | boolean>;
}

const SWITCHES: Record<keyof ChatSwitches, string> = {
  stats: "speed after each reply",
  wordwrap: "wrap replies at words",
  history: "keep what is typed for the next time",
};

const SWITCH_NAMES = Object.keys(SWITCHES) as (keyof ChatSwitches)[];

function switchNames({ switches }: CommandContext): (keyof ChatSwitches)[] {
  return SWITCH_NAMES.filter((name) => switches[name] !== undefined);
}

function switchRow({ switches, initialSwitches }: CommandContext, name: keyof ChatSwitches): SettingRow {
  const origin = switches[name] === initialSwitches[name] ? "default" : "yours";
  return { name, value: switches[name] ? "on" : "off", origin, doc: SWITCHES[name] };
}

function setSwitch(context: CommandContext, name: keyof ChatSwitches, value: string): void {
  const { switches, initialSwitches, hasHistoryFile } = context;
  if (value !== "on" && value !== "off" && value !== "default") {
    throw new MllmError("invalid_argument", `${name} is on or off, not "${value}"`);
  }
  if (name === "history" && value === "on" && !hasHistoryFile) {
    throw new MllmError("not_found", "there is no home folder to keep the history in", {
      next: "Set HOME, start again",
    });
  }
  switches[name] = value === "default" ? initialSwitches[name] : value === "on";
}

function printSettings(context: CommandContext): void {
  const { talk, print } = context;
  const rows = [
    ...talk.settings.rows(talk.model.samplingDefaults),
    ...switchNames(context).map((name) => switchRow(context, name)),
  ];
  print(
    `${settingsTable(rows)}\n/set NAME VALUE changes one; /set NAME default and /set reset go back to the model's ` +
      "value, or the default where the model has none.",
  );
}

const ORIGINS: Record<SettingRow["origin"], string> = {
  yours: "set by you",
  model: "the model's recommendation",
  default: "the default",
};

function printSetting({ print }: CommandContext, { name, value, origin }: SettingRow): void {
  print(`${name}: ${value} (${ORIGINS[origin]})`);
}

function set(context: CommandContext, argument: string): void {
  const { talk, print } = context;
  const [, first = "", second = ""] = /^(\S*)\s*([\s\S]*)$/.exec(argument) ?? [];
  if (first === "") return printSettings(context);
  if (first === "reset" && second === "") {
    talk.settings.reset();
    for (const name of switchNames(context)) setSwitch(context, name, "default");
    return print("All settings are the model's own again, or the defaults.");
  }
  const [name, value] = first === "reset" ? [second, "default"] : [first.toLowerCase(), second];
  const toggle = switchNames(context).find((one) => one === name);
  if (toggle !== undefined) {
    if (value !== "") setSwitch(context, toggle, value);
    return printSetting(context, switchRow(context, toggle));
  }
  if (!Settings.has(name)) throw unknownSetting(name, [...Settings.names, ...switchNames(context)]);
  if (value === "default" || value === "reset") talk.settings.reset(name);
  else if (value !== "") talk.settings.setText(name, value);
  printSetting(context, talk.settings.row(name, talk.model.samplingDefaults));
}

function system({ talk, print }: CommandContext, argument: string): void {
  const { conversation } = talk;
  if (argument === "") {
    return print(
      conversation.system === undefined
        ? "No system prompt is set; the model's chat template may bring its own."
        : `System prompt: ${conversation.system}`,
    );
  }
  conversation.system = argument === "none" ? undefined : argument;
  if (argument === "none") return print("The system prompt is removed.");
  const when = conversation.messages.length === 0
    ? ""
    : " It holds for the whole conversation from the next message on.";
  print(`The system prompt is set.${when}`);
}

function path({ home }: CommandContext, argument: string, command: string): string {
  const text = argument.replace(/^"(.*)"$/, "$1");
  if (text === "") throw new MllmError("invalid_argument", `${command} needs a file: ${command} talk.json`);
  return home !== undefined && text.startsWith("~/") ? home + text.slice(1) : text;
}

async function save(context: CommandContext, argument: string, replace: boolean): Promise<void> {
  const { talk, ownFiles, print } = context;
  const file = path(context, argument, "/save");
  const { messages, system } = talk.conversation;
  await writeConversation(file, { model: talk.modelName, system, messages, settings: talk.settings.toJson() }, {
    replace: replace || ownFiles.has(file),
  });
  ownFiles.add(file);
  print(`${messages.length} messages saved to ${file}`);
}

function load(context: CommandContext, argument: string): void {
  const { talk, ownFiles, print } = context;
  const file = path(context, argument, "/load");
  const saved = readConversation(file);
  try {
    talk.settings.replace(saved.settings);
  } catch (error) {
    throw new MllmError("invalid_file", `its settings are not right: ${(error as Error).message}`, {
      file,
      cause: error,
    });
  }
  talk.conversation.clear();
  talk.conversation.system = saved.system;
  talk.conversation.messages = saved.messages;
  ownFiles.add(file);
  const other = saved.model !== undefined && saved.model !== talk.modelName ? `, held with ${saved.model}` : "";
  print(`${saved.messages.length} messages loaded from ${file}${other}`);
}

function stats({ talk, print }: CommandContext): void {
  const { model, totals, conversation } = talk;
  const last = conversation.lastStats;
  const { weights, kv, arena } = model.memory;
  const isGone = last !== undefined && isStoppedEarly(last); // what was read of the message counts for nothing
  const used = last === undefined ? 0 : isGone ? last.cachedTokens : last.promptTokens + last.generatedTokens;
  print([
    `model      ${talk.modelName}, loaded in ${(model.loadMs / 1000).toFixed(2)} s`,
    `memory     weights ${formatMiB(weights)}, KV cache ${formatMiB(kv)}, activations ${formatMiB(arena)}`,
    `context    ${used} of ${model.context} tokens used`,
    `last       ${last === undefined ? "no reply yet" : isGone ? STOPPED_EARLY : statsLine(last)}`,
    `prompts    ${totals.promptTokens} tokens (${totals.cachedTokens} cached) ` +
    `${perSecond(totals.promptTokens - totals.cachedTokens, totals.promptMs)} t/s`,
    `replies    ${totals.replies}, together ${totals.generatedTokens} tokens ` +
    `${perSecond(totals.generatedTokens, totals.generateMs)} t/s`,
  ].join("\n"));
}

function help({ print }: CommandContext, argument: string): void {
  const width = Math.max(...COMMANDS.map((command) => command.usage.length)) + 2;
  const line = (command: Command) => `  ${command.usage.padEnd(width)}${command.doc}`;
  if (argument !== "") return print(line(known(argument.replace(/^\//, ""))));
  print([
    ...COMMANDS.map(line),
    "",
    '  Several lines: """ before and after, or \\ or Alt+Enter at the end of a line;',
    "  pasted text goes in as it is. Ctrl+C stops a reply, Ctrl+D leaves.",
    "  A message that begins with a slash: put two.",
  ].join("\n"));
}

const COMMANDS: readonly Command[] = [
  { name: "help", aliases: ["?"], usage: "/help", doc: "this list", takesArgument: true, run: help },
  {
    name: "clear",
    usage: "/clear",
    doc: "forget the conversation, keep the system prompt",
    takesArgument: false,
    run: ({ talk, print }) => {
      talk.conversation.clear();
      print("The conversation starts again.");
    },
  },
  {
    name: "system",
    usage: "/system [TEXT]",
    doc: "show or set the system prompt (none removes it)",
    takesArgument: true,
    run: system,
  },
  {
    name: "set",
    usage: "/set [NAME VALUE]",
    doc: "show or change how replies are made",
    takesArgument: true,
    run: set,
  },
  {
    name: "save",
    usage: "/save FILE",
    doc: "save the conversation (/save! replaces a file)",
    takesArgument: true,
    run: (c, a) => save(c, a, false),
  },
  { name: "load", usage: "/load FILE", doc: "go on with a saved conversation", takesArgument: true, run: load },
  { name: "stats", usage: "/stats", doc: "speed, memory and context", takesArgument: false, run: stats },
  {
    name: "bye",
    aliases: ["exit", "quit"],
    usage: "/bye",
    doc: "leave (so does Ctrl+D)",
    takesArgument: false,
    run: () => true,
  },
];

/** The command of that name. Throws `invalid_argument`, with a suggestion. */
function known(name: string): Command {
  const command = COMMANDS.find((one) => one.name === name || one.aliases?.includes(name));
  if (command !== undefined) return command;
  const meant = nearest(name, COMMANDS.map((one) => one.name));
  throw new MllmError("invalid_argument", `there is no command /${name}`, {
    next: meant === undefined ? "/help lists them" : `Did you mean /${meant}?`,
  });
}

/** `/name argument`, or undefined when the text is a message. A slash alone asks for the list. */
function parse(text: string): { name: string; argument: string } | undefined {
  if (text.trim() === "/") return { name: "help", argument: "" };
  const match = /^\/([a-z?]+!?)(?:\s+([\s\S]*))?$/i.exec(text.trim());
  return match === null ? undefined : { name: match[1].toLowerCase(), argument: (match[2] ?? "").trim() };
}

/** True when the text looks like a command, known or not: one line of `/name` and an argument. */
export function looksLikeCommand(text: string): boolean {
  return !text.trim().includes("\n") && parse(text) !== undefined;
}

/** The message that a text is, with one slash less where two were put; undefined when it is a command. */
export function messageOf(text: string): string | undefined {
  if (looksLikeCommand(text)) return undefined;
  return text.startsWith("//") && looksLikeCommand(text.slice(1)) ? text.slice(1) : text;
}

/** Runs a command; answers true to leave. Throws `invalid_argument` for an unknown one, with a suggestion. */
export async function runCommand(context: CommandContext, text: string): Promise<boolean> {
  const { name, argument } = parse(text)!;
  if (name === "save!") {
    await save(context, argument, true);
    return false;
  }
  const command = known(name);
  if (argument !== "" && !command.takesArgument) {
    throw new MllmError("invalid_argument", `/${name} takes nothing behind it`, {
      next: "A message that begins with a slash: put two",
    });
  }
  return await command.run(context, argument) === true;
}

/** What Tab can make of a text. */
export function completeCommand(text: string): string[] {
  const setting = /^\/set\s+(\S*)$/.exec(text);
  if (setting !== null) {
    return [...Settings.names, ...SWITCH_NAMES, "reset"].filter((name) => name.startsWith(setting[1]))
      .map((name) => `/set ${name}`);
  }
  if (!/^\/\S*$/.test(text)) return [];
  return COMMANDS.map((command) => `/${command.name}`).filter((name) => name.startsWith(text));
}
