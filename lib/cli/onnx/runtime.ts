import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import type { DType } from '../../dtype.ts';

/** As much of onnxruntime-node as is used here. */
export interface Runtime {
  readonly Tensor: new (dtype: string, data: unknown, dims: readonly number[]) => RuntimeTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<Session>;
  };
}

export interface RuntimeTensor {
  readonly type: DType;
  readonly data: never;
  readonly dims: readonly number[];
}

export interface Session {
  run(
    feeds: Readonly<Record<string, RuntimeTensor>>,
    fetches: Readonly<Record<string, null>>,
  ): Promise<Record<string, RuntimeTensor>>;
  release(): Promise<void>;
}

/** What was found. */
export interface Installed {
  readonly runtime: Runtime;
  readonly version: string;
}

export const PACKAGE = 'onnxruntime-node';

/** Where it is looked for: beside the user's own files, and where `npm run bench:peers` of a clone puts it. */
const places = (): string[] => [process.cwd(), resolve(import.meta.dirname, '../../../.cache/peers')];

/** onnxruntime-node; null where it is not installed. @throws Error where it is and does not load */
export function findRuntime(): Installed | null {
  for (const place of places()) {
    const require = createRequire(join(place, 'package.json'));
    try {
      require.resolve(PACKAGE);
    } catch {
      continue;
    }
    const version = (require(`${PACKAGE}/package.json`) as { version: string }).version;
    return { runtime: require(PACKAGE) as Runtime, version };
  }
  return null;
}
