/** The tuned tables in use: which one holds for an open, and a run of `mllm tune` that adds to it. */
import {
  type Backend,
  type BackendPlugin,
  describeChoice,
  type DeviceInfo,
  type KernelRow,
  KernelSelector,
  MllmError,
  type OpName,
  probeBackend,
} from "@mllm/core";
import type { TuneProgress, TuneReport } from "../engine.ts";
import type { TunedStore } from "./tuned_store.ts";
import { findTable, kindKey, measurementKey, type TunedKey, tunedRows, type TunedTable } from "./tuned_table.ts";
import { type LoadWatch, ProcessorWatch } from "./load.ts";
import { Tuner, type Workload } from "./tuner.ts";

/** What opens a backend, as far as a table depends on it. */
export interface OpenChoice {
  level?: string;
  threads?: number;
}

/** The rows for an open, and what `doctor` says about them. */
export interface TunedRows {
  rows: KernelRow[];
  /** One line. */
  status: string;
}

async function libraryHash(plugin: BackendPlugin): Promise<string> {
  const bytes = await Deno.readFile(await plugin.library());
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

async function keyOf(plugin: BackendPlugin, device: DeviceInfo, { level, threads }: OpenChoice): Promise<TunedKey> {
  return {
    backend: plugin.name,
    cpu: `${device.cpu ?? "unknown"} (${device.microarchitecture ?? "unknown"})`, // virtual machines hide either
    level: level ?? device.level,
    threads: threads ?? device.cores,
    library: await libraryHash(plugin),
  };
}

/** One line of `doctor` about a tuned row. */
export function describeRow(row: KernelRow): string {
  const [dtype, x] = [row.dtypes?.[0], row.x?.[0]];
  const shape = row.k === undefined ? `rows of ${row.n?.min}` : `[${row.n?.min}, ${row.k.min}] by ${x}`;
  return `${row.op} ${row.phase} (${dtype} ${shape}): ${describeChoice(row.op as OpName, row)}`;
}

/** Looks tables up in a store. What is wrong with the store is told once to `warn`, and is never an error. */
export class TunedKernels {
  readonly #store: TunedStore | undefined;
  readonly #warn: (text: string) => void;
  readonly #watch: (backend: Backend) => LoadWatch;
  #tables: readonly TunedTable[] | undefined;
  /** Why the file can't be read. */
  #problem: string | undefined;

  /** `watch` tells of other programs while kernels are tuned. */
  constructor(
    store: TunedStore | undefined,
    warn: (text: string) => void,
    watch: (backend: Backend) => LoadWatch = (backend) => new ProcessorWatch(backend),
  ) {
    this.#store = store;
    this.#warn = warn;
    this.#watch = watch;
  }

  /** The rows that hold for a backend opened like this. */
  async find(plugin: BackendPlugin, open: OpenChoice): Promise<TunedRows> {
    const tables = this.#read();
    if (this.#store === undefined) return { rows: [], status: "no place for tables: HOME is not set" };
    if (this.#problem !== undefined) return { rows: [], status: this.#problem };
    if (tables.length === 0) return { rows: [], status: `nothing: \`mllm tune\` measures, into ${this.#store.path}` };
    const device = await probeBackend(plugin);
    if (!device.available) return { rows: [], status: "the backend is not available" };
    const table = findTable(tables, await keyOf(plugin, device, open));
    if (typeof table === "string") return { rows: [], status: `${this.#store.path} is not used: ${table}` };
    const { level } = table.key;
    const rows = tunedRows(table, new KernelSelector(plugin.kernelRows, level, device.microarchitecture));
    const kinds = new Set(table.measurements.map((one) => `${one.stage === "decode"} ${kindKey(one)}`)).size;
    return {
      rows,
      status: `${rows.length} of ${kinds} kinds of command differ from the default (${this.#store.path})`,
    };
  }

  /** The plugin with the rows that hold for it before its own. */
  async applied(plugin: BackendPlugin, open: OpenChoice): Promise<BackendPlugin> {
    const { rows } = await this.find(plugin, open);
    return rows.length === 0 ? plugin : { ...plugin, kernelRows: [...rows, ...plugin.kernelRows] };
  }

  /**
   * Measures what the workloads hold and the table does not, and writes it after each stage. `force` forgets the table
   * first; the signal leaves the stage that runs, and those behind it, for the next time. Throws `io` when the file
   * can't be written, and what `TunedStore.read` throws unless `force`.
   */
  async tune(
    backend: Backend,
    workloads: Iterable<() => Workload & Disposable>,
    { force, onProgress, signal }: { force: boolean; onProgress: TuneProgress; signal?: AbortSignal },
  ): Promise<TuneReport> {
    const store = this.#store;
    if (store === undefined) {
      throw new MllmError("io", "there is no place to keep the table", { next: "MLLM_TUNED names a file" });
    }
    store.checkWritable();
    const { plugin, device, threads } = backend;
    const key = await keyOf(plugin, device, { level: device.level, threads });
    const all = force ? this.#read() : store.read();
    const old = findTable(all, key);
    const table: TunedTable = typeof old === "string" || force ? { key, day: "", measurements: [] } : old;
    // Of this CPU only the tables of this build are kept: earlier ones hold for no library any more.
    const others = all.filter(({ key: { backend, cpu, library } }, i) =>
      all[i] !== old && (backend !== key.backend || cpu !== key.cpu || library === key.library)
    );
    const before = table.measurements.length;
    using watch = this.#watch(backend);
    const tuner = new Tuner(backend, { watch, onRun: onProgress, signal });
    try {
      for (const make of workloads) {
        using workload = make();
        for await (const found of tuner.tune(workload, new Set(table.measurements.map(measurementKey)))) {
          table.measurements.push(...found);
          table.day = new Date().toISOString().slice(0, 10);
          store.write([...others, table]);
          [this.#tables, this.#problem] = [undefined, undefined];
        }
      }
    } catch (error) {
      if (!signal?.aborted || error !== signal.reason) throw error;
    }
    return {
      file: store.path,
      measured: table.measurements.length - before,
      known: before,
      disturbed: tuner.disturbed,
      interrupted: signal?.aborted ?? false,
      rows: tunedRows(table, backend.selector).map(describeRow),
    };
  }

  #read(): readonly TunedTable[] {
    if (this.#tables !== undefined) return this.#tables;
    try {
      this.#tables = this.#store?.read() ?? [];
    } catch (error) {
      if (!(error instanceof MllmError)) throw error;
      this.#problem = `not used: ${error.message}`;
      this.#warn(`the tuned kernels are ${this.#problem}`);
      this.#tables = [];
    }
    return this.#tables;
  }
}
