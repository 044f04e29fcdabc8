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
  writeSafetensors,
} from "@mllm/core";
import {
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
} from "./engine.ts";
import type { Host } from "./host.ts";
import { UsageError } from "./options.ts";
import { nearest } from "./suggest.ts";

/** Ops and element types that `doctor` explains. */
const EXPLAINED: readonly { op: OpName; dtypes: readonly DType[] }[] = [
  { op: "linear", dtypes: ["f32", "f16", "bf16", "q8_0", "q4_0", "q5_0", "q4_k", "q6_k"] },
  { op: "attention", dtypes: ["f32"] },
];
/** A weight matrix of a usual size, 2048 x 2048. */
const EXPLAINED_ELEMENTS = 1 << 22;

/** A plugin whose library can be loaded also from inside a compiled binary. */
function unpacked(plugin: BackendPlugin, assets: AssetOptions): BackendPlugin {
  return {
    name: plugin.name,
    description: plugin.description,
    levels: plugin.levels,
    kernelRows: plugin.kernelRows,
    library: async () => await assetPath(await plugin.library(), assets),
  };
}

class ProjectEngine implements Engine {
  readonly defaultBackend = Deno.build.arch === "aarch64" ? "arm" : "x86";
  readonly #registry: BackendRegistry;

  constructor(assets: AssetOptions) {
    this.#registry = new BackendRegistry([x86, arm, qnn, cann].map((plugin) => unpacked(plugin, assets)));
  }

  async load(path: string, options: RunOptions): Promise<LoadedModel> {
    const { plugin, level } = this.#plugin(options.backend);
    const { threads, activations, context, chunk, eager, kvDtype, onProgress } = options;
    return await loadModel(path, {
      backend: plugin,
      level,
      threads,
      activations,
      context,
      chunk,
      eager,
      kvDtype,
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
      type: `${config.modelType} ${parametersText(parameters)} ${mainType(weights)}`,
      architecture: config.modelType,
      parameters,
      fileBytes: weights.reduce((sum, { bytes }) => sum + bytes, 0),
      config: checkpoint.config,
      tensors: weights.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })),
      memory: estimateMemory(backend, config, weights, settings),
      context: settings.context,
      hasChatTemplate: checkpoint.chatTemplate !== undefined,
      ignored,
    };
  }

  async tokenizer(path: string): Promise<TextCodec> {
    return createTokenizer((await openCheckpoint(path)).tokenizer);
  }

  async backends(): Promise<BackendReport[]> {
    const reports: BackendReport[] = [];
    for (const name of this.#registry.names) {
      const plugin = this.#registry.get(name);
      const device = await probeBackend(plugin);
      reports.push(report(plugin, device, device.available ? await explainKernels(plugin) : []));
    }
    return reports;
  }

  describeRun(model: LoadedModel) {
    const { backend, settings } = ownModel(model);
    return {
      backend: backend.plugin.name,
      level: backend.device.level,
      threads: backend.threads,
      cpu: backend.device.cpu ?? "",
      chunk: settings.chunk,
      kvDtype: settings.kvDtype,
    };
  }

  programs(model: LoadedModel): ReadonlyMap<string, CapturedProgram> {
    return ownModel(model).programs;
  }

  async writeTensors(path: string, tensors: { name: string; shape: number[]; data: Float32Array }[]): Promise<void> {
    await writeSafetensors(path, tensors.map((tensor) => ({ ...tensor, dtype: "f32" as const })));
  }

  /** `x86` or `x86:avx2`. Throws UsageError, with a suggestion. */
  #plugin(spec: string = this.defaultBackend): { plugin: BackendPlugin; level: string | undefined } {
    const [name, level] = spec.split(":");
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

function report(plugin: BackendPlugin, device: DeviceInfo, choices: readonly string[]): BackendReport {
  const { available, reason, cpu, level, levels, features, cores, memoryBytes } = device;
  const { name, description, levels: allLevels } = plugin;
  return { name, description, available, reason, cpu, level, levels, allLevels, features, cores, memoryBytes, choices };
}

async function explainKernels(plugin: BackendPlugin): Promise<string[]> {
  let backend: Backend;
  try {
    backend = await openBackend(plugin);
  } catch (error) {
    return [`the backend does not open: ${error instanceof Error ? error.message : error}`];
  }
  try {
    return EXPLAINED.flatMap(({ op, dtypes }) =>
      (["decode", "prefill"] as const).flatMap((phase) =>
        backend.selector.explain({ op, dtypes, phase, elements: EXPLAINED_ELEMENTS })
      )
    );
  } finally {
    backend[Symbol.dispose]();
  }
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

/** The engine and the demonstration model, as the programs `chat` and `mllm` use them. */
export function openProgram(host: Host, command: string): ChatProgram {
  const assets: AssetOptions = { isVirtual: Deno.build.standalone, cacheFolder: cacheFolder(host.env) };
  return { engine: new ProjectEngine(assets), findEmbeddedModel: () => embeddedModel(assets), command };
}
