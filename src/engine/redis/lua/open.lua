-- Empties a partition's journal, begins it at <epoch>-0 and takes writes again.
-- KEYS  1 meta  2 journal
-- ARGV  1 epoch  2 run id of this server
-- Reply OK | STALE where a later epoch was opened, by a node that recovered meanwhile
local present = redis.call('HGET', KEYS[1], 'epoch')
if present and tonumber(present) >= tonumber(ARGV[1]) then return 'STALE' end
redis.call('UNLINK', KEYS[1], KEYS[2])
-- The marker at <epoch>-0 makes the first entry <epoch>-1. Trimming it leaves an empty stream that remembers it.
redis.call('XADD', KEYS[2], ARGV[1] .. '-0', 'epoch', ARGV[1])
redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'server', ARGV[2], 'committed', ARGV[1] .. '-0')
return 'OK'
