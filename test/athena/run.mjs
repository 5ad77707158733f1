// Runs queries that are written for Amazon Athena. Athena itself, which is Trino behind
// tables of Glue, is not to be had here: DuckDB runs them, with macros for the functions
// of Trino's that it names otherwise, and dt-sql-parser judges them by Trino's grammar.
//
// Standard input is JSON: columns of the table cloudtrail as DuckDB has their types, the
// file of its rows, and the statements; standard output the rows of each.
import { readFileSync } from 'node:fs';
import { createRequire, register } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const from = createRequire(join(process.argv[2], 'package.json'));
const load = async (name) => import(pathToFileURL(from.resolve(name)).href);

// The parser's package imports folders, as bundlers allow.
register('data:text/javascript,' + encodeURIComponent(`
export async function resolve(name, context, next) {
  for (const end of ['', '.js', '/index.js']) {
    try { return await next(name + end, context); } catch (e) { if (end === '/index.js') throw e; }
  }
}`));

const job = JSON.parse(readFileSync(0, 'utf8'));

const { TrinoSQL } = await load('dt-sql-parser');
const parser = new TrinoSQL();
for (const text of job.statements) {
  const mistakes = parser.validate(text);
  if (mistakes.length > 0) {
    throw new Error('not of Trino\'s grammar: ' + JSON.stringify(mistakes) + '\n' + text);
  }
}

const { DuckDBInstance } = await load('@duckdb/node-api');
const db = await (await DuckDBInstance.create(':memory:')).connect();
for (const macro of [
  // Names with other characters than letters are ["…"] in Trino's paths, ."…" in DuckDB's.
  `path(p) AS regexp_replace(p, '\\["([^"]*)"\\]', '."\\1"', 'g')`,
  `json_extract_scalar(j, p) AS json_extract_string(j, path(p))`,
  `json_array_get(j, n) AS json_extract(j, '$[' || n || ']')`,
  `json_size(j, p) AS len(json_keys(j, p))`,
  `json_format(j) AS CAST(j AS VARCHAR)`,
  `element_at(l, n) AS list_extract(l, n)`,
  `sequence(a, b) AS generate_series(CAST(a AS BIGINT), CAST(b AS BIGINT))`,
  `from_iso8601_timestamp(t) AS CAST(rtrim(t, 'Z') AS TIMESTAMP)`,
  `regexp_like(t, p) AS regexp_matches(t, p)`,
]) {
  await db.run('CREATE MACRO ' + macro);
}
const columns = Object.entries(job.columns).map(([name, type]) => `'${name}': '${type}'`).join(', ');
await db.run(`CREATE TABLE cloudtrail AS SELECT * FROM read_json('${job.file}', format = 'newline_delimited', columns = {${columns}})`);
const answers = [];
for (const text of job.statements) {
  answers.push((await db.runAndReadAll(text)).getRowObjectsJson());
}
console.log(JSON.stringify(answers));
