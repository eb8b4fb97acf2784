import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const PLACES = [process.env.CHROMIUM ?? '', '/usr/bin/chromium', '/usr/bin/chromium-browser'];

/** Where a Chromium is; null where there is none. */
export const chromium: string | null = PLACES.find((place) => place !== '' && existsSync(place)) ?? null;

type Fields = Record<string, unknown>;

/** A headless Chromium with one page, driven through the pipe of its DevTools protocol. */
export class Browser {
  /** Of the page: messages of its console, errors, and whatever it asked the network for. */
  readonly complaints: string[] = [];
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #input: Writable;
  readonly #waiting = new Map<number, { resolve(result: Fields): void; reject(error: Error): void }>();
  #buffer = '';
  #nextId = 1;
  #session: string | undefined;
  #onLoad: () => void = () => {};

  constructor(program: string) {
    this.#folder = mkdtempSync(join(tmpdir(), 'node-sdpa-chromium-'));
    const options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
    const quiet = [
      '--no-first-run',
      '--disable-extensions',
      '--disable-background-networking',
      '--hide-scrollbars',
    ];
    this.#process = spawn(
      program,
      [...options, ...quiet, `--user-data-dir=${this.#folder}`, '--remote-debugging-pipe', 'about:blank'],
      // Without what is put under Node: a sanitizer's allocator is none for a browser.
      {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
        env: { ...process.env, LD_PRELOAD: undefined },
      },
    );
    const [, , , input, output] = this.#process.stdio;
    this.#input = input as Writable;
    (output as Readable).setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#process.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('chromium has ended'));
    });
  }

  #read(text: string): void {
    const messages = `${this.#buffer}${text}`.split('\0');
    this.#buffer = messages.pop() as string;
    for (const message of messages) this.#receive(JSON.parse(message));
  }

  #receive({ id, method, params, result, error }: Fields): void {
    const waiting = this.#waiting.get(id as number);
    if (waiting !== undefined) {
      this.#waiting.delete(id as number);
      if (error === undefined) waiting.resolve(result as Fields);
      else waiting.reject(new Error(JSON.stringify(error)));
    }
    if (method === 'Page.loadEventFired') this.#onLoad();
    if (
      method === 'Runtime.consoleAPICalled' ||
      method === 'Runtime.exceptionThrown' ||
      method === 'Log.entryAdded'
    )
      this.complaints.push(JSON.stringify(params));
    const { request } = (params ?? {}) as { request?: { url: string } };
    if (method === 'Network.requestWillBeSent' && !request?.url.startsWith('file:'))
      this.complaints.push(`asks for ${request?.url}`);
  }

  send(method: string, params: Fields = {}): Promise<Fields> {
    const id = this.#nextId++;
    const message = {
      id,
      method,
      params,
      ...(this.#session === undefined ? {} : { sessionId: this.#session }),
    };
    this.#input.write(`${JSON.stringify(message)}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** Opens the one page. */
  async open(): Promise<void> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    this.#session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await this.send(`${domain}.enable`);
  }

  /** Shows a document at a width in light or dark. */
  async show(url: string, width: number, scheme: 'light' | 'dark'): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: scheme }];
    await this.send('Emulation.setEmulatedMedia', { media: '', features });
    const screen = { width, height: 800, deviceScaleFactor: 1, mobile: width < 600 };
    await this.send('Emulation.setDeviceMetricsOverride', screen);
    const loaded = new Promise<void>((resolve) => {
      this.#onLoad = resolve;
    });
    await this.send('Page.navigate', { url });
    await loaded;
  }

  /** The value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result } = await this.send('Runtime.evaluate', { expression, returnByValue: true });
    return (result as { value: T }).value;
  }

  /** PNG of the whole page. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', {
      format: 'png',
      captureBeyondViewport: true,
    });
    return Buffer.from(data as string, 'base64');
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#session = undefined;
    this.#input.write(`${JSON.stringify({ id: this.#nextId++, method: 'Browser.close' })}\0`);
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(timer);
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
