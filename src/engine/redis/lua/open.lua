#!lua flags=allow-oom
-- Empties a partition's journal, begins it at <epoch>-0 and takes writes again.
-- KEYS  1 meta  2 journal
-- ARGV  1 epoch  2 id of the ledger  3 its history
-- Reply OK | FOREIGN where it belongs to another ledger | STALE where a later epoch was opened, by a node that recovered
--       meanwhile
local present = redis.call('HMGET', KEYS[1], 'epoch', 'ledger')
if present[2] and present[2] ~= ARGV[2] then return 'FOREIGN' end
if present[1] and tonumber(present[1]) >= tonumber(ARGV[1]) then return 'STALE' end
redis.call('UNLINK', KEYS[1], KEYS[2])
-- The marker at <epoch>-0 makes the first entry <epoch>-1. Trimming it leaves an empty stream that remembers it.
redis.call('XADD', KEYS[2], ARGV[1] .. '-0', 'epoch', ARGV[1])
redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'ledger', ARGV[2], 'history', ARGV[3], 'committed', ARGV[1] .. '-0')
return 'OK'
