/** Other programs that the benchmark starts. */
import { command } from "../workspace.ts";

/** Runs a command and gives its stdout. Throws with the end of its stderr when it fails or is not there. */
export async function output(program: string, args: string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await command(program, { args, cwd }).output();
  if (success) return new TextDecoder().decode(stdout);
  throw new Error(
    `${program} ${args.join(" ").slice(0, 200)} failed:\n${new TextDecoder().decode(stderr).slice(-2000)}`,
  );
}

/** The Python of a virtual environment that has these packages, as wheels; made when it is not there. */
export async function pythonEnvironment(folder: string, packages: readonly string[]): Promise<string> {
  const python = Deno.build.os === "windows" ? `${folder}/Scripts/python.exe` : `${folder}/bin/python`;
  const stamp = `${folder}/installed.txt`;
  const wanted = packages.join("\n");
  if (await Deno.readTextFile(stamp).catch(() => "") === wanted) return python;
  console.error(`bench:peers: installing ${packages.join(", ")} into .peers/ …`);
  await output("python3", ["-m", "venv", folder], ".");
  await output(python, ["-m", "pip", "install", "-q", "--only-binary=:all:", ...packages], ".");
  await Deno.writeTextFile(stamp, wanted);
  return python;
}
