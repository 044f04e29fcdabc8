/** The engine behind the apps: `@mllm/models` on the backends of this project. */
import { arm } from "@mllm/backend-arm";
import { cann } from "@mllm/backend-cann";
import { qnn } from "@mllm/backend-qnn";
import { x86 } from "@mllm/backend-x86";
import {
  type Backend,
  type BackendPlugin,
  BackendRegistry,
  type DeviceInfo,
  type DType,
  MllmError,
  openBackend,
  type OpName,
  probeBackend,
  splitSpec,
  writeSafetensors,
} from "@mllm/core";
import {
  type Checkpoint,
  createTokenizer,
  estimateMemory,
  inspectModel,
  LanguageModel,
  loadModel,
  openCheckpoint,
  resolveSettings,
} from "@mllm/models";
import { type AssetOptions, assetPath, cacheFolder, embeddedModel } from "./assets.ts";
import type { ChatProgram } from "./chat/main.ts";
import type {
  BackendReport,
  CapturedProgram,
  Engine,
  LoadedModel,
  ModelSummary,
  RunOptions,
  TextCodec,
  TuneProgress,
  TuneReport,
} from "./engine.ts";
import type { Host } from "./host.ts";
import { UsageError } from "./options.ts";
import { nearest } from "./suggest.ts";
import type { LoadWatch } from "./tuning/load.ts";
import { describeRow, TunedKernels } from "./tuning/tuned_kernels.ts";
import { tunedPath, TunedStore } from "./tuning/tuned_store.ts";
import type { Workload } from "./tuning/tuner.ts";
import { LayersWorkload, ModelWorkload, suits, USUAL_DTYPES, USUAL_SIZES } from "./tuning/workloads.ts";

/** Ops that `doctor` explains: of `linear` a weight matrix of a usual size, of attention as many heads. */
const EXPLAINED: readonly { op: OpName; x: DType; dtypes: readonly DType[]; n: number; k?: number }[] = [
  { op: "linear", x: "f32", dtypes: ["f32", "f16", "bf16"], n: 2048, k: 2048 },
  { op: "linear", x: "q8a", dtypes: ["q8_0", "q4_0", "q5_0", "q4_k", "q6_k"], n: 2048, k: 2048 },
  { op: "attention", x: "f32", dtypes: ["f16", "f32"], n: 2048 },
];

/** A plugin whose library can be loaded also from inside a compiled binary. */
function unpacked(plugin: BackendPlugin, assets: AssetOptions): BackendPlugin {
  return { ...plugin, library: async () => await assetPath(await plugin.library(), assets) };
}

class ProjectEngine implements Engine {
  readonly defaultBackend = Deno.build.arch === "aarch64" ? "arm" : "x86";
  readonly #registry: BackendRegistry;
  readonly #tuned: TunedKernels;

  constructor(assets: AssetOptions, tuned: TunedKernels) {
    this.#tuned = tuned;
    this.#registry = new BackendRegistry([x86, arm, qnn, cann].map((plugin) => unpacked(plugin, assets)));
  }

  async load(path: string, options: RunOptions): Promise<LoadedModel> {
    const { plugin, level } = this.#plugin(options.backend);
    const { threads, activations, context, chunk, eager, modeling, kvDtype, keyDtype, valueDtype, onProgress } =
      options;
    return await loadModel(path, {
      backend: await this.#tuned.applied(plugin, { level, threads }),
      level,
      threads,
      activations,
      context,
      chunk,
      eager,
      modeling,
      kvDtype,
      keyDtype,
      valueDtype,
      onProgress: onProgress === undefined ? undefined : (done, total) => onProgress("loading", done, total),
    });
  }

  async summarize(path: string, options: RunOptions): Promise<ModelSummary> {
    const { checkpoint, config, ignored } = await inspectModel(path);
    const { plugin, level } = this.#plugin(options.backend);
    using backend = await openBackend(plugin, { level, threads: options.threads, activations: options.activations });
    const settings = resolveSettings(options, config, backend.activations);
    const weights = [...checkpoint.weights.values()];
    const parameters = weights.reduce((sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1), 0);
    return {
      path,
      format: checkpoint.format,
      type: `${config.modelType} ${parametersText(parameters)} ${ggufFileType(checkpoint) ?? mainType(weights)}`,
      architecture: config.modelType,
      parameters,
      fileBytes: weights.reduce((sum, { bytes }) => sum + bytes, 0),
      config: checkpoint.config,
      tensors: weights.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })),
      memory: estimateMemory(backend, config, weights, settings),
      keyDtype: settings.keyDtype,
      valueDtype: settings.valueDtype,
      context: settings.context,
      contextLimit: config.maxPositionEmbeddings,
      hasChatTemplate: checkpoint.chatTemplate !== undefined,
      ignored,
    };
  }

  async tokenizer(path: string): Promise<TextCodec> {
    const checkpoint = await openCheckpoint(path);
    return createTokenizer(checkpoint.tokenizer, checkpoint.path);
  }

  async backends(options: RunOptions): Promise<BackendReport[]> {
    const reports: BackendReport[] = [];
    const chosen = this.#plugin(options.backend);
    for (const name of this.#registry.names) {
      const plugin = this.#registry.get(name);
      const device = await probeBackend(plugin);
      if (!device.available) reports.push(report(plugin, device, []));
      else if (name === chosen.plugin.name) {
        reports.push(await explained(plugin, device, { ...options, level: chosen.level }, this.#tuned));
      } else reports.push(await explained(plugin, device, {}, this.#tuned));
    }
    return reports;
  }

  async tune(
    path: string | undefined,
    { force, onTune, signal, ...options }: RunOptions & {
      force: boolean;
      onTune: TuneProgress;
      signal?: AbortSignal;
    },
  ): Promise<TuneReport> {
    const { plugin, level } = this.#plugin(options.backend);
    const { threads, activations, onProgress } = options;
    using backend = await openBackend(plugin, { level, threads, activations });
    const how = { force, onProgress: onTune, signal };
    if (path === undefined) return await this.#tuned.tune(backend, usualWorkloads(backend), how);
    using model = await loadModel(path, {
      ...options,
      backend,
      onProgress: (done, total) => {
        signal?.throwIfAborted();
        onProgress?.("loading", done, total);
      },
    });
    const name = path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
    const workloads = [() => new ModelWorkload(name, model)];
    return await this.#tuned.tune(backend, workloads, how);
  }

  describeRun(model: LoadedModel) {
    const { backend, settings } = ownModel(model);
    return {
      backend: backend.plugin.name,
      level: backend.device.level,
      threads: backend.threads,
      cpu: backend.device.cpu ?? "",
      chunk: settings.chunk,
      keyDtype: settings.keyDtype,
      valueDtype: settings.valueDtype,
    };
  }

  watchActivations(model: LoadedModel): () => number {
    const { backend, programs } = ownModel(model);
    backend.resetMemoryPeak();
    const before = backend.memoryInUse;
    return () => [...programs.values()].reduce((sum, { arenaBytes }) => sum + arenaBytes, backend.memoryPeak - before);
  }

  programs(model: LoadedModel): ReadonlyMap<string, CapturedProgram> {
    return ownModel(model).programs;
  }

  async writeTensors(path: string, tensors: { name: string; shape: number[]; data: Float32Array }[]): Promise<void> {
    await writeSafetensors(path, tensors.map((tensor) => ({ ...tensor, dtype: "f32" as const })));
  }

  /** `x86` or `x86:avx2`. Throws UsageError, with a suggestion. */
  #plugin(spec: string = this.defaultBackend): { plugin: BackendPlugin; level: string | undefined } {
    const { name, level } = splitSpec(spec);
    const { names } = this.#registry;
    if (!names.includes(name)) {
      const meant = nearest(name, names);
      throw new UsageError(
        `no backend is named "${name}"`,
        meant === undefined ? `There are: ${names.join(", ")}` : `Did you mean ${meant}?`,
      );
    }
    const plugin = this.#registry.get(name);
    if (level !== undefined && !plugin.levels.includes(level)) {
      const meant = nearest(level, plugin.levels);
      throw new UsageError(
        `backend ${name} has no level "${level}"`,
        meant === undefined ? `There are: ${plugin.levels.join(", ") || "none"}` : `Did you mean ${name}:${meant}?`,
      );
    }
    return { plugin, level };
  }
}

function ownModel(model: LoadedModel): LanguageModel {
  if (model instanceof LanguageModel) return model;
  throw new MllmError("internal", "this model did not come from this engine");
}

/** Layers of every usual size in every type that suits it, one after the other: each takes memory. */
function usualWorkloads(backend: Backend): (() => Workload & Disposable)[] {
  return USUAL_SIZES.flatMap((sizes) =>
    USUAL_DTYPES.filter((dtype) => suits(dtype, sizes)).map((dtype) => () => new LayersWorkload(backend, dtype, sizes))
  );
}

function report(plugin: BackendPlugin, device: DeviceInfo, choices: readonly string[]): BackendReport {
  return { ...device, name: plugin.name, description: plugin.description, choices };
}

/** Opens the backend to ask which kernels it chooses. A named level that this CPU lacks is the user's error. */
async function explained(
  plugin: BackendPlugin,
  device: DeviceInfo,
  options: RunOptions & { level?: string },
  tuned: TunedKernels,
): Promise<BackendReport> {
  const { level, threads, activations } = options;
  const { rows, status } = await tuned.find(plugin, { level, threads });
  using backend = await openBackend(plugin, { level, threads, activations });
  const choices = EXPLAINED.flatMap(({ n, k = 1, ...one }) =>
    (["decode", "prefill"] as const).flatMap((phase) => {
      const rows = phase === "decode" ? 1 : 512;
      return backend.selector.explain({ ...one, phase, rows, n, k, elements: rows * n * k });
    })
  );
  const all = [...rows.map(describeRow), ...choices];
  return { ...report(plugin, { ...device, level: backend.device.level }, all), tuned: status };
}

/** Names of the values of `general.file_type`, as files are called: llama_ftype of llama.cpp's include/llama.h. */
const GGUF_FILE_TYPES = ("F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S " +
  "Q5_K_M Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - " +
  "TQ1_0 TQ2_0").split(" ");

/** What kind of quantisation a GGUF file says that it has. */
function ggufFileType({ tokenizer }: Checkpoint): string | undefined {
  const type = tokenizer.kind === "gguf" ? tokenizer.metadata.get("general.file_type") : undefined;
  const name = typeof type === "number" ? GGUF_FILE_TYPES[type] : undefined;
  return name === "-" ? undefined : name;
}

/** The element type that most bytes of the weights have. */
function mainType(weights: readonly { dtype: string; bytes: number }[]): string {
  const bytesOf = new Map<string, number>();
  for (const { dtype, bytes } of weights) bytesOf.set(dtype, (bytesOf.get(dtype) ?? 0) + bytes);
  const [main = ["none", 0]] = [...bytesOf].sort((a, b) => b[1] - a[1]);
  return main[0].toUpperCase();
}

function parametersText(count: number): string {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)}B` : `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)}M`;
}

/**
 * The engine and the demonstration model, as the programs `chat` and `mllm` use them. `isVirtual`: library and model
 * lie in the file system inside a compiled binary. `watch` tells of other programs while kernels are tuned.
 */
export function openProgram(
  host: Host,
  command: string,
  isVirtual: boolean = Deno.build.standalone,
  watch?: (backend: Backend) => LoadWatch,
): ChatProgram {
  const assets: AssetOptions = { isVirtual, cacheFolder: cacheFolder(host.env) };
  const path = tunedPath(host.env);
  const store = path === undefined ? undefined : new TunedStore(path);
  const tuned = new TunedKernels(store, (text) => host.stderr.write(`mllm: ${text}\n`), watch);
  return {
    engine: new ProjectEngine(assets, tuned),
    findEmbeddedModel: () => embeddedModel(assets),
    command,
    fetchCommand: isVirtual ? undefined : "deno task fetch:real qwen",
  };
}
