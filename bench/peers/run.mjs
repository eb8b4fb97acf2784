// Measures and prints the whole comparison.
import { writeFileSync } from 'node:fs';
import { print } from '../machine.mjs';
import { aimsTable } from './aims.mjs';
import { writeDocs } from './docs.mjs';
import { describeMachine } from './document.mjs';
import { measureReport } from './report.mjs';
import { defaultPagesTable, routesTable, sideEffectsTable, timeTables } from './tables.mjs';

/** @param options as readOptions gives them */
export async function run(options) {
  const report = await measureReport(options, (what) => console.error(`bench:peers: ${what}`));
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
  printReport(report);
  if (!options.isQuick) writeDocs(report);
}

function printReport(report) {
  console.log(describeMachine(report));
  const tables = [
    ...timeTables(report),
    sideEffectsTable(report),
    defaultPagesTable(report),
    routesTable(report),
    aimsTable(report),
  ];
  for (const table of tables) if (table !== null) print(table.title, table.head, table.rows, table.numLabels);
}
