/** Style as a test: what we hold every file of the repository to. */
import { describe, it } from "@std/testing/bdd";
import { assertEquals } from "@std/assert";
import { repositoryRoot } from "./workspace.ts";

const root = repositoryRoot();

/** The formatter breaks code at 120; a comment or a string may be a word longer. Python files hold training sentences. */
const LINE_LENGTH_MAX: Record<string, number> = { ts: 128, zig: 150, py: Infinity };
const FILE_LINES_MAX = 600;
const GENERATED = new Set(["packages/core/src/native/abi.ts", "packages/core/native/mllm.h", "docs/ops.md"]);
const SKIP = /(^|\/)(node_modules|zig-out|\.zig-cache|\.git|\.nx|\.models|\.peers|testdata|dist)(\/|$)/;

/** Packages of ours that each package may import; everything else is refused. */
const MAY_IMPORT: Record<string, string[]> = {
  "packages/core": [],
  "packages/backend-x86": ["@mllm/core"],
  "packages/backend-arm": ["@mllm/core"],
  "packages/backend-qnn": ["@mllm/core"],
  "packages/backend-cann": ["@mllm/core"],
  "packages/models": ["@mllm/core"],
  "packages/apps": ["@mllm/core", "@mllm/models", "@mllm/backend-"],
};

function* walk(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(`${root}/${folder}`)) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (SKIP.test(path)) continue;
    if (entry.isDirectory) yield* walk(path);
    else yield path;
  }
}

const files = [...walk("")].filter((path) => /\.(ts|zig|py|md|json|sh|jinja)$/.test(path) || path === ".ci/run");
const sources = files.filter((path) => /\.(ts|zig|py)$/.test(path) && !GENERATED.has(path));
const text = (path: string) => Deno.readTextFileSync(`${root}/${path}`);
const extension = (path: string) => path.slice(path.lastIndexOf(".") + 1);
const isTest = (path: string) => path.endsWith("_test.ts") || path.endsWith("_test.py");

/** Specifiers of the static and dynamic imports and re-exports of a TypeScript file. */
function imports(path: string): string[] {
  const code = text(path).replace(/^\s*(\*|\/\/|\/\*\*).*$/gm, ""); // examples in comments are not imports
  return [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']/g)].map((match) => match[1]);
}

/** The file that a relative specifier names. */
function resolve(from: string, specifier: string): string {
  return decodeURIComponent(new URL(specifier, `file:///${from}`).pathname.slice(1));
}

function isTooLong(path: string, line: string): boolean {
  return [...line].length > LINE_LENGTH_MAX[extension(path)] && !/https?:\/\//.test(line);
}

/** Places, as file and line, where a pattern occurs. */
function findLines(pattern: RegExp, paths: string[]): string[] {
  return paths.flatMap((path) =>
    text(path).split("\n").flatMap((line, i) =>
      pattern.test(line) ? [`${path}:${i + 1}: ${line.trim().slice(0, 100)}`] : []
    )
  );
}

describe("tidy", () => {
  it("lines are not too long", () => {
    const long = sources.flatMap((path) =>
      text(path).split("\n").flatMap((line, i) => isTooLong(path, line) ? [`${path}:${i + 1}`] : [])
    );
    assertEquals(long, []);
  });

  it("files are not too long", () => {
    const long = sources.filter((path) => text(path).split("\n").length > FILE_LINES_MAX);
    assertEquals(long, []);
  });

  it("no tabs, trailing spaces or missing newlines", () => {
    const bad = sources.filter((path) => /\t|[ ]\n/.test(text(path)) || !text(path).endsWith("\n"));
    assertEquals(bad, []);
  });

  it("nothing is left for later", () => {
    const words = new RegExp("\\b(TO" + "DO|FIX" + "ME|XX" + "X|HA" + "CK)\\b");
    assertEquals(findLines(words, sources), []);
  });

  it("no path of a machine, no registry host", () => {
    const machine = new RegExp(
      "/wo" + "rk/|/ro" + "ot/|/ho" + "me/[a-z]|regis" + "try\\.npmjs|files\\.pytho" + "nhosted|pypi\\.o" + "rg",
    );
    assertEquals(findLines(machine, files.filter((path) => !path.endsWith("package-lock.json"))), []);
  });

  it("imports go one way", () => {
    const wrong: string[] = [];
    for (const path of sources.filter((p) => p.startsWith("packages/") && p.endsWith(".ts"))) {
      const own = path.split("/").slice(0, 2).join("/");
      for (const specifier of imports(path)) {
        if (specifier.startsWith("@mllm/")) {
          const allowed = MAY_IMPORT[own].some((name) => specifier.startsWith(name));
          if (!allowed && !isTest(path)) wrong.push(`${path} imports ${specifier}`);
        } else if (specifier.startsWith(".")) {
          const target = resolve(path, specifier);
          const crosses = target.startsWith("packages/") ? !target.startsWith(`${own}/`) : !isTest(path);
          if (crosses) wrong.push(`${path} imports ${specifier}`);
        } else if (specifier.startsWith("@std/") && !isTest(path) && !path.includes("/conformance/")) {
          wrong.push(`${path} imports ${specifier}`);
        }
      }
    }
    assertEquals(wrong, []);
  });

  const libraries = sources.filter((path) =>
    /^packages\/(core|models|backend-[a-z0-9]+)\/.*\.ts$/.test(path) && !isTest(path) && !path.includes("/conformance/")
  );

  it("only apps print, exit or read the environment", () => {
    const used = findLines(/^(?!\s*(\*|\/\/)).*(\bconsole\.|\bDeno\.(exit|env|args)\b)/, libraries);
    assertEquals(used, []);
  });

  it("only apps speak of their options and commands", () => {
    // Deno's options, --allow-read say, are those of whoever runs the library.
    const named = findLines(/["'`](|.*[\s(`])(--(?!allow-)[a-z]|\/(clear|set|system)\b)/, libraries);
    assertEquals(named, []);
  });

  it("every TypeScript file is used", () => {
    const typescript = files.filter((path) => path.endsWith(".ts"));
    const used = new Set<string>();
    for (const path of typescript) {
      for (const specifier of imports(path)) if (specifier.startsWith(".")) used.add(resolve(path, specifier));
      for (const match of text(path).matchAll(/new URL\("([^"]+\.ts)", import\.meta\.url\)/g)) {
        used.add(resolve(path, match[1]));
      }
    }
    for (const path of files.filter((p) => /^packages\/[^/]+\/deno\.json$/.test(p))) {
      for (const target of Object.values(JSON.parse(text(path)).exports)) used.add(resolve(path, String(target)));
    }
    const mentioned = text("deno.json") + files.filter((p) => p.endsWith("project.json")).map(text).join("") +
      typescript.filter((p) => p.startsWith("tools/") || isTest(p)).map(text).join("");
    const dead = typescript.filter((path) =>
      !used.has(path) && !isTest(path) && !/packages\/[^/]+\/mod\.ts$/.test(path) && !mentioned.includes(path)
    );
    assertEquals(dead, []);
  });

  it("every command that the documents name exists", () => {
    const tasks = new Set(Object.keys(JSON.parse(text("deno.json")).tasks));
    const missing = files.filter((path) => path.endsWith(".md")).flatMap((path) =>
      [...text(path).matchAll(/\bdeno(?:@[\d.]+)? task ([a-z][\w:-]*)/g)].filter(([, task]) => !tasks.has(task))
        .map(([command]) => `${path}: ${command}`)
    );
    assertEquals(missing, []);
  });
});
