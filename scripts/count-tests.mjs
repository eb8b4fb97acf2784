// Prints `N passed, N failed, N skipped` from the JSON report of vitest. A test file that could not even be
// loaded counts as one failure.
import { existsSync, readFileSync } from 'node:fs';

const file = process.argv[2];
if (!existsSync(file)) {
  console.log('0 passed, 1 failed, 0 skipped');
  process.exit(1);
}
const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
  readFileSync(file, 'utf8'),
);
const unloadable = testResults.filter(
  ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
);
console.log(
  `${numPassedTests} passed, ${numFailedTests + unloadable.length} failed, ${numPendingTests + numTodoTests} skipped`,
);
