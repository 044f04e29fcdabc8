/**
 * A compiled program: replayed with one native call per run.
 * @module
 */
import type { Backend } from "../backend.ts";
import { CommandWriter, type Place, writeI64 } from "../command.ts";
import { addCosts, noCost, type OpCost, opCost } from "../cost.ts";
import type { DType } from "../dtype.ts";
import { MllmError } from "../errors.ts";
import { type NumberArray, toStored } from "../host_data.ts";
import type { KernelQuery } from "../kernel_selector.ts";
import * as abi from "../native/abi.ts";
import { kernelQuery } from "../ops/call.ts";
import { maxDim, maxShape, registerIds } from "../scalar.ts";
import { describeCall } from "../shape.ts";
import { MemoryStorage } from "../storage.ts";
import { describeView, elementCount, type View } from "../view.ts";
import type { Graph, GraphBuffer, GraphNode } from "./graph.ts";
import { planGraph } from "./passes/memory_plan.ts";

/** What one pass did. */
export interface PassReport {
  /** "capture" for the recording itself, else the pass. */
  readonly name: string;
  /** Nodes recorded, or how often the pass applied. */
  readonly changes: number;
}

/** The values of the registers for one run. */
export interface RunOptions {
  /** Tokens in this run, 1 to tokensMax. */
  readonly tokens: number;
  /** Position of the first of them in the sequence. */
  readonly position: number;
}

/** An input of a program, written before a run; it keeps its contents between runs. */
export interface ProgramInput {
  /** Type of the elements. */
  readonly dtype: DType;
  /**
   * Sets the first values, row-major, converted as `Tensor.write` does; the rest is left as it is. Throws
   * `invalid_argument` for more values than fit, or while the program runs.
   */
  write(values: NumberArray): void;
}

/** One command, for inspection. */
export interface ProgramCommand {
  /** Row of the op table. */
  readonly op: abi.OpName;
  /** The op with names, types and shapes of its operands, for people. */
  readonly text: string;
  /** Type and shape of the operand that decides its cost, `q4_0 [3072, 1024]`: commands of one kind cost the same. */
  readonly kind: string;
  /** What the kernel selector was asked. */
  readonly query: KernelQuery;
  /** Kernel variant; 0 is the default of the level. */
  readonly variant: number;
  /** Threads at most; 0 is all. */
  readonly threads: number;
  /** The sentence of the selector's row that decided. */
  readonly reason: string;
  /** The bytes that one run has to touch and the operations that it has to do, from shapes and registers alone. */
  cost(run: RunOptions): OpCost;
}

/** What one command cost over all profiled runs. */
export interface ProfileEntry {
  /** Row of the op table. */
  readonly op: abi.OpName;
  /** The op with names, types and shapes of its operands, for people. */
  readonly text: string;
  /** Type and shape of the operand that decides its cost. */
  readonly kind: string;
  /** Kernel variant that ran. */
  readonly variant: number;
  /** Runs that were measured. */
  readonly calls: number;
  /** Wall-clock nanoseconds over all of them. */
  readonly ns: number;
  /** Bytes and operations of all of them. */
  readonly cost: OpCost;
}

/** Measured runs that wait for their costs to be added up: adding takes longer than a small run. */
const measuredMax = 4096;

/** The last resort for programs that nobody disposed: their native part goes when they are unreachable. */
const finalizer = new FinalizationRegistry<{ backend: Backend; handle: bigint }>(({ backend, handle }) => {
  if (!backend.isClosed) backend.library.destroy(backend.handle, handle);
});

/**
 * A recorded model with planned memory, made by `capture`. Write its inputs, run it, read its outputs; nothing is
 * allocated meanwhile. Dispose it to give its memory back.
 */
export class Program implements Disposable {
  /** Inputs by the names given to `capture`. */
  readonly inputs: Readonly<Record<string, ProgramInput>>;
  /** What a run does, in order, after all passes. */
  readonly commands: readonly ProgramCommand[];
  /** What the passes did, in order. */
  readonly passes: readonly PassReport[];
  /** Bytes of the arena that holds all temporaries; programs of one backend share one as large as the largest needs. */
  readonly arenaBytes: number;
  /** The most bytes of temporaries that live at one time: no arena could be smaller. */
  readonly lowerBoundBytes: number;
  /** The largest token count of a run. */
  readonly tokensMax: number;
  /** The largest position + tokens that the KV caches in use hold; no limit without any. */
  readonly contextMax: number;
  /** The backend that it was compiled for. */
  readonly backend: Backend;
  readonly #outputs: ReadonlyMap<string, View>;
  readonly #storages: ReadonlyMap<GraphBuffer, MemoryStorage>;
  readonly #externals: readonly MemoryStorage[];
  /** Those of them that a run writes. */
  readonly #written: readonly MemoryStorage[];
  readonly #registers: MemoryStorage;
  readonly #registerWords: Uint32Array;
  readonly #registerAddress: bigint;
  readonly #handle: bigint;
  #busy = false;
  #disposed = false;
  /** Measured runs whose cost is not in `#costs` yet; undefined until the measuring starts. */
  #measured: RunOptions[] | undefined;
  #costs: OpCost[] = [];

  /**
   * Plans and compiles a finished graph; called by `capture`.
   * @internal
   */
  constructor(graph: Graph, passes: readonly PassReport[]) {
    const { backend } = graph;
    const plan = planGraph(graph);
    this.backend = backend;
    this.passes = passes;
    this.arenaBytes = plan.arenaBytes;
    this.lowerBoundBytes = plan.lowerBoundBytes;
    this.tokensMax = graph.tokens.max;
    this.contextMax = contextMax(graph.nodes);
    this.#outputs = graph.outputs;
    this.#externals = externals(graph.nodes.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]));
    this.#written = externals(graph.nodes.flatMap(({ outputs }) => outputs));
    const storages = new Map<GraphBuffer, MemoryStorage>();
    this.#storages = storages;
    this.#registers = MemoryStorage.allocate(backend, abi.Registers.size);
    const registers = this.#registers.bytesView();
    this.#registerWords = new Uint32Array(registers.buffer, registers.byteOffset, abi.Registers.size / 4);
    this.#registerAddress = BigInt(this.#registers.address);
    for (const storage of this.#externals) storage.retain();
    try {
      // Results are handed out as views of JavaScript's memory, so nobody has to copy them before the program goes.
      for (const view of [...graph.inputs.values(), ...graph.outputs.values()]) {
        const buffer = view.storage as GraphBuffer;
        if (!storages.has(buffer)) storages.set(buffer, MemoryStorage.ofScript(buffer.bytes));
      }
      const place = (view: View): Place => {
        const buffer = view.storage as GraphBuffer;
        const own = storages.get(buffer);
        if (own !== undefined) return { space: "address", offset: own.address };
        return { space: "arena", offset: plan.offsets.get(buffer)! };
      };
      const compiled = compile(graph, place, plan.arenaBytes);
      this.#handle = compiled.handle;
      this.commands = compiled.commands;
    } catch (error) {
      for (const storage of [this.#registers, ...storages.values(), ...this.#externals]) storage.release();
      throw error;
    }
    finalizer.register(this, { backend, handle: this.#handle }, this);
    this.inputs = Object.fromEntries([...graph.inputs].map(([name, view]) => [name, this.#input(name, view)]));
  }

  /** Names of the outputs, as the captured function returned them. */
  get outputNames(): string[] {
    return [...this.#outputs.keys()];
  }

  /**
   * Runs all commands and returns when they are done. Throws `invalid_argument` for a token count or position out of
   * range, a disposed or running program, or (with the native text) a token id out of its table.
   */
  run(options: RunOptions): void {
    this.#begin(options);
    const status = this.backend.library.run(this.backend.handle, this.#handle, this.#registerAddress);
    if (status !== 0) throw this.backend.failure(status, "run");
    this.#measure(options);
  }

  /**
   * Like `run` on another thread, so that the event loop goes on; the program can't be used until the promise settles.
   */
  async runAsync(options: RunOptions): Promise<void> {
    this.#begin(options);
    this.#busy = true;
    try {
      const status = await this.backend.runAsync(this.#handle, this.#registerAddress);
      if (status !== 0) throw this.backend.failure(status, "run");
      this.#measure(options);
    } finally {
      this.#busy = false;
    }
  }

  /**
   * The f32 output of the last run, row-major, for its first `tokens` rows when it has a symbolic dim: a view without a
   * copy, whose values the next run replaces, and whose buffer must not be transferred to somebody else. Throws
   * `invalid_argument` for an unknown name, another type, or a program that is running or disposed.
   */
  output(name: string, tokens: number = this.tokensMax): Float32Array<ArrayBuffer> {
    const { buffer, offset, count } = this.#output(name, tokens, "f32");
    return new Float32Array(buffer, offset, count);
  }

  /** As `output`, for an i32 output (token ids of `argmax`, say). */
  outputInts(name: string, tokens: number = this.tokensMax): Int32Array<ArrayBuffer> {
    const { buffer, offset, count } = this.#output(name, tokens, "i32");
    return new Int32Array(buffer, offset, count);
  }

  /** Cost of each command over the runs since the first call, which starts the measuring (of all zeros). */
  profile(): ProfileEntry[] {
    this.#check();
    const { size, offset } = abi.ProfileRow;
    const rows = new Uint8Array(Math.max(1, this.commands.length) * size);
    const { library, handle } = this.backend;
    const count = Number(library.profile(handle, this.#handle, rows, BigInt(this.commands.length)));
    const view = new DataView(rows.buffer);
    this.#addCosts();
    return this.commands.slice(0, count).map(({ op, text, kind }, i) => ({
      op,
      text,
      kind,
      variant: view.getUint32(i * size + offset.variant, true),
      calls: Number(view.getBigUint64(i * size + offset.calls, true)),
      ns: Number(view.getBigUint64(i * size + offset.ns, true)),
      cost: this.#costs[i],
    }));
  }

  /**
   * Gives back the native program and its inputs and outputs; what it borrowed (weights, caches) is released. Again is
   * harmless. Throws `invalid_argument` while it runs.
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    if (this.#busy) throw new MllmError("invalid_argument", "the program is running: await it before disposing it");
    this.#disposed = true;
    finalizer.unregister(this);
    if (!this.backend.isClosed) this.backend.library.destroy(this.backend.handle, this.#handle);
    for (const storage of [this.#registers, ...this.#storages.values(), ...this.#externals]) storage.release();
  }

  #measure({ tokens, position }: RunOptions): void {
    if (this.#measured === undefined) return;
    if (this.#measured.push({ tokens, position }) === measuredMax) this.#addCosts();
  }

  #addCosts(): void {
    const runs = this.#measured ?? [];
    this.#costs = this.commands.map((command, i) =>
      runs.reduce((sum, run) => addCosts(sum, command.cost(run)), this.#costs[i] ?? noCost)
    );
    this.#measured = [];
  }

  #check(): void {
    if (this.#disposed) throw new MllmError("invalid_argument", "the program was disposed");
    if (this.#busy) throw new MllmError("invalid_argument", "the program is running: await it first");
    if (this.backend.isClosed) throw new MllmError("invalid_argument", "the backend of the program is closed");
  }

  #begin({ tokens, position }: RunOptions): void {
    this.#check();
    for (const storage of this.#storages.values()) {
      if (!storage.isDetached) continue;
      throw new MllmError("invalid_argument", "the memory of an output of the program was transferred", {
        next: "It can't run again: transfer copies (`slice`) next time",
      });
    }
    if (!Number.isSafeInteger(tokens) || tokens < 1 || tokens > this.tokensMax) {
      throw new MllmError("invalid_argument", `run: ${tokens} tokens are not in 1..${this.tokensMax}`);
    }
    if (!Number.isSafeInteger(position) || position < 0 || position + tokens > this.contextMax) {
      throw new MllmError(
        "invalid_argument",
        `run: ${tokens} tokens at position ${position} leave the context of ${this.contextMax}`,
      );
    }
    const words = this.#registerWords;
    writeI64(words, registerIds.tokens * 2, tokens);
    writeI64(words, registerIds.position * 2, position);
    writeI64(words, registerIds.last * 2, tokens - 1);
    writeI64(words, registerIds.context * 2, position + tokens);
    for (const storage of this.#written) storage.version++;
  }

  #input(name: string, view: View): ProgramInput {
    const storage = this.#storages.get(view.storage as GraphBuffer)!;
    return {
      dtype: view.dtype,
      write: (values) => {
        this.#check();
        const stored = toStored(values, view.dtype);
        if (stored.byteLength > storage.bytes) {
          throw new MllmError(
            "invalid_argument",
            `input "${name}": ${values.length} values do not fit ${describeView(view)}`,
          );
        }
        storage.bytesView().set(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength));
      },
    };
  }

  #output(name: string, tokens: number, dtype: DType): { buffer: ArrayBuffer; offset: number; count: number } {
    this.#check();
    const view = this.#outputs.get(name);
    if (view === undefined) {
      throw new MllmError("invalid_argument", `the program has no output "${name}"`, {
        next: `It has ${this.outputNames.join(", ")}`,
      });
    }
    if (view.dtype !== dtype) {
      throw new MllmError("invalid_argument", `output "${name}" is ${describeView(view)}, not ${dtype}`);
    }
    if (!Number.isSafeInteger(tokens) || tokens < 0 || tokens > this.tokensMax) {
      throw new MllmError("invalid_argument", `output "${name}": ${tokens} tokens are not in 0..${this.tokensMax}`);
    }
    const bytes = this.#storages.get(view.storage as GraphBuffer)!.bytesView();
    const shape = view.shape.map((dim) => typeof dim === "number" ? dim : tokens);
    return { buffer: bytes.buffer, offset: bytes.byteOffset + view.byteOffset, count: elementCount(shape) };
  }
}

function externals(views: readonly (View | undefined)[]): MemoryStorage[] {
  return [...new Set(views.flatMap((view) => view?.storage instanceof MemoryStorage ? [view.storage] : []))];
}

function compile(
  graph: Graph,
  place: (view: View) => Place,
  arenaBytes: number,
): { handle: bigint; commands: ProgramCommand[] } {
  const { backend, nodes } = graph;
  const writer = new CommandWriter(Math.max(1, nodes.length));
  const commands = nodes.map((node, i): ProgramCommand => {
    const query = kernelQuery(node.op, node.inputs);
    const { variant, threads, reason } = backend.selector.choose(query);
    writer.write(i, { ...node, variant, threads }, place);
    const text = describeCall(node.op, node.inputs);
    const cost = (run: RunOptions) => opCost(node, run);
    return { op: node.op, text, kind: kindOf(node), query, variant, threads, reason, cost };
  });
  return { handle: backend.compile(writer, nodes.length, arenaBytes, graph.tokens.max), commands };
}

/** A command without its names: ops of layers that are alike have one kind. */
function kindOf({ op, inputs, outputs }: GraphNode): string {
  const shaped = op === "linear" || op === "linear_swiglu" || op === "embedding" ? inputs[1]! : inputs[0]!;
  const typed = op === "attention" ? inputs[1]! : op === "kv_append" ? outputs[0] : shaped;
  return `${typed.dtype} [${shaped.shape.map((dim) => typeof dim === "number" ? dim : "tokens").join(", ")}]`;
}

/** The smallest capacity among the page tables that the program walks; unlimited without any. */
function contextMax(nodes: readonly GraphNode[]): number {
  let most = Number.MAX_SAFE_INTEGER;
  for (const node of nodes) {
    const [pages, cache] = node.op === "kv_append"
      ? [node.inputs[1]!, node.outputs[0]]
      : node.op === "attention"
      ? [node.inputs[3]!, node.inputs[1]!]
      : [];
    if (pages !== undefined && cache !== undefined) {
      most = Math.min(most, maxShape(pages.shape)[0] * maxDim(cache.shape[2]));
    }
  }
  return most;
}
