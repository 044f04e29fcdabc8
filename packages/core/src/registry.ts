/**
 * Backends by name.
 * @module
 */
import {
  type Backend,
  type BackendOptions,
  type BackendPlugin,
  type DeviceInfo,
  openBackend,
  probeBackend,
} from "./backend.ts";
import { MllmError } from "./errors.ts";

/** The parts of `x86` or `x86:avx2`, not checked. */
export function splitSpec(spec: string): { name: string; level?: string } {
  const colon = spec.indexOf(":");
  return colon < 0 ? { name: spec } : { name: spec.slice(0, colon), level: spec.slice(colon + 1) };
}

/** The plugins a program knows, opened by specs like `x86` or `x86:avx2`. */
export class BackendRegistry {
  readonly #plugins = new Map<string, BackendPlugin>();

  /** Registers these plugins. Throws as `register`. */
  constructor(plugins: readonly BackendPlugin[] = []) {
    for (const plugin of plugins) this.register(plugin);
  }

  /** Adds a plugin. Throws `invalid_argument` when the name is taken. */
  register(plugin: BackendPlugin): this {
    if (this.#plugins.has(plugin.name)) {
      throw new MllmError("invalid_argument", `backend ${plugin.name} is registered twice`);
    }
    this.#plugins.set(plugin.name, plugin);
    return this;
  }

  /** Names in the order of registration. */
  get names(): string[] {
    return [...this.#plugins.keys()];
  }

  /** The plugin of a name. Throws `not_found` naming those there are. */
  get(name: string): BackendPlugin {
    const plugin = this.#plugins.get(name);
    if (plugin === undefined) {
      throw new MllmError("not_found", `no backend is named "${name}"`, {
        next: `There are: ${this.names.join(", ") || "none"}`,
      });
    }
    return plugin;
  }

  /**
   * Opens `name` or `name:level`; a level in the spec wins over that of the options. Throws as `get` and `openBackend`.
   */
  async open(spec: string, options: BackendOptions = {}): Promise<Backend> {
    const { name, level = options.level } = splitSpec(spec);
    return await openBackend(this.get(name), { ...options, level });
  }

  /** What every plugin finds on this machine. Never throws. */
  async probe(): Promise<Map<string, DeviceInfo>> {
    const found = new Map<string, DeviceInfo>();
    for (const [name, plugin] of this.#plugins) found.set(name, await probeBackend(plugin));
    return found;
  }
}
