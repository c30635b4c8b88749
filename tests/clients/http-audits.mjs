// The audits of graphql-http, a reference implementation of the GraphQL-over-HTTP draft. Every one must pass, MUST, SHOULD
// and MAY alike, but for those named here with the reason.
import { serverAudits } from 'graphql-http';

const contradicted = {};

const url = `${process.argv[2]}/graphql`;
let failed = 0;
const audits = serverAudits({ url });
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status === 'ok' || audit.id in contradicted) continue;
  failed += 1;
  console.error(`${result.status} ${audit.id} ${audit.name}: ${result.reason}`);
}
for (const id of Object.keys(contradicted).filter((id) => !audits.some((audit) => audit.id === id))) {
  failed += 1;
  console.error(`there is no audit ${id}`);
}
console.log(`${audits.length} audits, ${failed} failed`);
// An empty list of audits would prove nothing.
process.exit(failed === 0 && audits.length > 50 ? 0 : 1);
