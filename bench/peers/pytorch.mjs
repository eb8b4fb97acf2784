// PyTorch, in a process of its own (pytorch.py), as a system beside the others: see systems.mjs.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { UsageError } from '../../dist/cli/command.js';
import { Tensor } from '../../dist/index.js';

/** The ways of computing attention there, by phase; names of routes are known to pytorch.py. */
const ROUTES = {
  prefill: [
    { family: 'PyTorch SDPA', name: 'enable_gqa' },
    { family: 'PyTorch SDPA', name: 'k and v repeated for each query head beforehand' },
  ],
  decode: [
    { family: 'PyTorch SDPA, cache kept by hand', name: 'enable_gqa' },
    { family: 'PyTorch SDPA, cache kept by hand', name: 'the heads of a group as queries of one head' },
  ],
};

/** Requests go to the process one at a time, each answered by a line. */
export class PyTorch {
  #process;
  #lines;
  #ended;

  /** @param python the command of a Python that has torch. @throws UsageError */
  static async start(python) {
    const pytorch = new PyTorch();
    pytorch.#process = spawn(python, [join(import.meta.dirname, 'pytorch.py')]);
    const { stdin, stdout, stderr } = pytorch.#process;
    let said = '';
    stderr.on('data', (text) => {
      said = `${said}${text}`.slice(-2000);
    });
    stdin.on('error', () => {}); // 'close' tells
    pytorch.#ended = new Promise((_, reject) => {
      const fail = (reason) => reject(new UsageError(`--python ${python}: ${reason}`));
      pytorch.#process.on('error', (error) => fail(error.message));
      pytorch.#process.on('close', (status, signal) =>
        fail(`it ended with ${status ?? signal}; ${said.trim().split('\n').at(-1) || 'it said nothing'}`),
      );
    });
    pytorch.#ended.catch(() => {}); // it may end while nobody asks
    pytorch.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
    pytorch.version = await pytorch.ask('version');
    return pytorch;
  }

  async ask(...request) {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    const { value: line } = await Promise.race([this.#lines.next(), this.#ended]);
    if (line === undefined) await this.#ended;
    const { value, error } = JSON.parse(line);
    if (error !== undefined) throw new Error(error);
    return value;
  }

  stop() {
    this.#process.stdin.end();
  }

  routesOf({ phase }) {
    return ROUTES[phase];
  }

  /** run answers the seconds by the clock of that process. */
  async prepare(route, inputs, { phase, shape, context, dtype, threads }) {
    const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-'));
    const file = (name) => join(folder, name);
    const write = (name, x) => {
      writeFileSync(file(name), new Uint8Array(x.data.buffer, x.data.byteOffset, x.data.byteLength));
      return file(name);
    };
    const { q, k, v } = phase === 'prefill' ? flat(inputs) : inputs;
    const files = [write('q', q), write('k', k), write('v', v)];
    const system = await this.ask('prepare', phase, files, route.name, dtype, shape, context);
    return {
      name: route.family,
      route: route.name,
      spins: null,
      copiedCaches: { operator: 0, binding: 0 },
      isElsewhere: true,
      run: () => this.ask('run', system, threads),
      rewind() {},
      readOut: async () => {
        await this.ask('write', file('out'));
        const { buffer, byteOffset, byteLength } = readFileSync(file('out'));
        const bytes = buffer.slice(byteOffset, byteOffset + byteLength);
        const data = dtype === 'float32' ? new Float32Array(bytes) : new Uint16Array(bytes);
        return new Tensor(data, inputs.q.shape, { dtype });
      },
      dispose: async () => {
        rmSync(folder, { recursive: true });
        await this.ask('dispose', system);
      },
    };
  }
}

const flat = ({ flatQ, flatK, flatV }) => ({ q: flatQ, k: flatK, v: flatV });
