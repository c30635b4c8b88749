-- A random name that no other ledger has. The engine keeps it, so that a server is told when somebody else's ledger works on the
-- engine that it was pointed to. NULL until a server has opened the ledger.
ALTER TABLE meta ADD COLUMN ledger_id TEXT;
