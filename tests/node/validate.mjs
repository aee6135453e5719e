// Prints the report of Khronos' glTF validator for each file, as one JSON list.
import fs from "fs";
import validator from "gltf-validator";

const reports = [];
for (const file of process.argv.slice(2)) {
  reports.push(await validator.validateBytes(new Uint8Array(fs.readFileSync(file))));
}
console.log(JSON.stringify(reports));
