// What KaTeX finds wrong with each formula: a list of lists of formulas in, of messages out.
// Unknown commands and characters are accepted; the empty groups complete a command without arguments.
const katex = require(process.argv[2]);
const how = {throwOnError: false, strict: "ignore", displayMode: true};
const wrong = (formula) => {
  try { katex.__parse(formula + " {}{}{}", how); return ""; } catch (error) { return error.rawMessage || String(error); }
};
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(given.map((formulas) => formulas.map(wrong))));
