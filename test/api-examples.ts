import { resolve } from 'node:path';
import ts from 'typescript';

/** An @example block of the API: whose, in which file, and its code. */
export interface ApiExample {
  readonly name: string;
  readonly code: string;
}

/** What lib/index.ts offers, by kind, and all examples that its documentation holds. */
export interface DocumentedApi {
  /** Functions, classes and constants, and for classes `Class.method` of each public method. */
  readonly names: readonly string[];
  readonly examples: readonly ApiExample[];
}

const root = resolve(import.meta.dirname, '..');

/** Reads the sources: what is exported, and the @example blocks of it and of the public members of its classes. */
export function readApi(): DocumentedApi {
  const entry = resolve(root, 'lib/index.ts');
  const options = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext, noLib: true, types: [] };
  const program = ts.createProgram([entry], { ...options, allowImportingTsExtensions: true, noEmit: true });
  const checker = program.getTypeChecker();
  const index = checker.getSymbolAtLocation(program.getSourceFile(entry) as ts.SourceFile) as ts.Symbol;
  const names: string[] = [];
  const examples: ApiExample[] = [];
  const add = (name: string, symbol: ts.Symbol): void => {
    names.push(name);
    for (const tag of symbol.getJsDocTags(checker)) {
      if (tag.name === 'example') examples.push({ name, code: ts.displayPartsToString(tag.text) });
    }
  };
  for (const exported of checker.getExportsOfModule(index)) {
    const isAlias = (exported.flags & ts.SymbolFlags.Alias) !== 0;
    const symbol = isAlias ? checker.getAliasedSymbol(exported) : exported;
    if ((symbol.flags & ts.SymbolFlags.Value) === 0) continue; // types have no examples
    add(exported.name, symbol);
    if ((symbol.flags & ts.SymbolFlags.Class) === 0) continue;
    for (const members of [symbol.members, symbol.exports]) {
      members?.forEach((member) => {
        const isMethod = (member.flags & ts.SymbolFlags.Method) !== 0;
        const isInternal = member.getJsDocTags(checker).some((tag) => tag.name === 'internal');
        if (!isMethod || isInternal || !/^[a-z]/.test(member.name)) return;
        add(`${exported.name}.${member.name}`, member);
      });
    }
  }
  return { names, examples };
}

/** `[1, 8, 1, 64]`, `'text'`, a number or a boolean: what a comment behind a line may promise of its value. */
const PROMISE = /^(.*?);\s*\/\/ (\[[^\]]*\](?:\])?(?:, \[.*\])?|-?[\d.]+|'[^']*'|true|false)$/;

/**
 * The example as a script that checks what its comments promise: `expression; // value`, `const x = …; // [2, 3]` (the
 * shape of a tensor, or the value), `call; // throws SomeError`.
 */
export function checkedScript(code: string): string {
  const lines = code.split('\n').map((line) => {
    const [, call, error] = /^(.*?);\s*\/\/ throws (\w+)/.exec(line) ?? [];
    if (error !== undefined) return `await mustThrow(async () => ${call}, '${error}');`;
    const [, statement, value] = PROMISE.exec(line) ?? [];
    if (statement === undefined) return line;
    const [, name] = /^\s*(?:const|let) (\w+) = /.exec(statement) ?? [];
    return name === undefined
      ? `mustBe(${statement}, ${value});`
      : `${statement}; mustBe(${name}, ${value});`;
  });
  const { outputText } = ts.transpileModule(lines.join('\n'), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  return outputText.replace(/^export \{\};$/m, '');
}
