// docs/PEERS.md and docs/peers.svg of a report.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { writeDocument } from './document.mjs';
import { plotPanels } from './panels.mjs';
import { drawPlot } from './plot.mjs';

const folder = resolve(import.meta.dirname, '../../docs');

export function writeDocs(report) {
  const captions = [
    `One attention layer (32/8/128), float32, ${report.machine.cpu}; shorter is better`,
    'In brackets how many times as long as node-sdpa; dashed: nothing is appended to the cache',
  ];
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'PEERS.md'), writeDocument(report));
  writeFileSync(join(folder, 'peers.svg'), drawPlot(plotPanels(report), captions));
  console.log('\nbench:peers: wrote docs/PEERS.md and docs/peers.svg');
}
